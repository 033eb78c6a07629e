package quota

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// xfs mounts a fresh file system, which keeps projects even where the kernel
// has no quotas for them.
func xfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	image, root := filepath.Join(dir, "image"), filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil { // it wants 300 MB
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.xfs", "-q", image}, {"mount", "-t", "xfs", "-o", "loop", image, root}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmounting the file system: %v", err)
		}
	})
	return root
}

// Removing a layer must not lift the limit of the data root that it lies in.
func TestAnInheritedProjectIsNotALayersOwn(t *testing.T) {
	root := xfs(t)
	const administrators, layers = 42, 4711
	if err := assign(root, administrators); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"inherits", "limited", "limited/diff"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if dir == "limited" {
			if err := assign(filepath.Join(root, dir), layers); err != nil {
				t.Fatal(err)
			}
		}
	}
	for dir, want := range map[string]struct{ project, own uint32 }{
		"inherits": {administrators, 0}, "limited": {layers, layers}, "limited/diff": {layers, 0}} {
		fd, err := openDir(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		has, err := attributesOf(fd)
		if err != nil || has.project != want.project {
			t.Errorf("%s has project %d, %v; want %d", dir, has.project, err, want.project)
		}
		if got, err := own(fd); err != nil || got != want.own {
			t.Errorf("%s has project %d of its own, %v; want %d", dir, got, err, want.own)
		}
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}
}
