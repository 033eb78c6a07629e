package layer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loop mounts a fresh file system from a file; the test is skipped where the
// kernel or Debian's programs for it are missing.
func loop(t testing.TB, options string, mkfs ...string) (root string) {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	image, root := filepath.Join(dir, "image"), filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 512<<20); err != nil { // xfs wants 300 MB
		t.Fatal(err)
	}
	run(t, append(mkfs, image)...)
	filesystem := strings.TrimPrefix(mkfs[0], "mkfs.")
	if !kernelHas(filesystem) {
		t.Skip("the kernel has no " + filesystem)
	}
	out, err := exec.Command("mount", "-t", filesystem, "-o", "loop"+options, image, root).CombinedOutput()
	if err != nil {
		t.Skipf("the kernel does not mount %s%s: %s", filesystem, options, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmounting the file system: %v", err)
		}
	})
	return root
}

func run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// place is somewhere a driver works.
type place struct {
	name, driver string
	root         func(t testing.TB) string
	size         bool // writable layers can be limited
}

func tempRoot(t testing.TB) string { return t.TempDir() }

// places are all combinations that the conformance tests go through. The
// kernel decides which of them work on this machine.
var places = []place{
	{"overlay2", "overlay2", tempRoot, false},
	{"overlay2 on ext4 with quota", "overlay2", ext4Quota, true},
	{"overlay2 on xfs", "overlay2", func(t testing.TB) string { return loop(t, "", "mkfs.xfs", "-q") }, false},
	{"overlay2 on xfs with quota", "overlay2", xfsQuota, true},
	{"overlay2 on btrfs", "overlay2", onBtrfs, false},
	{"btrfs", "btrfs", onBtrfs, true},
	{"vfs", "vfs", tempRoot, false},
	{"vfs on btrfs", "vfs", onBtrfs, false},
	{"vfs on xfs with quota", "vfs", xfsQuota, true},
	{"vfs on ext4 with quota", "vfs", ext4Quota, true},
}

func ext4Quota(t testing.TB) string {
	return loop(t, ",prjquota", "mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota")
}

func xfsQuota(t testing.TB) string { return loop(t, ",pquota", "mkfs.xfs", "-q") }
func onBtrfs(t testing.TB) string  { return loop(t, "", "mkfs.btrfs", "-q") }

// eachPlace runs a test at every place that works here.
func eachPlace(t *testing.T, do func(t *testing.T, p place, root string)) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) { do(t, p, p.root(t)) })
	}
}
