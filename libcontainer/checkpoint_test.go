package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/criu"
	"github.com/engined/engined/proto/errdefs"
)

func openRoot(t *testing.T, root string) int {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestMountPointsAreMadeInsideTheRoot: whatever links the image has.
func TestMountPointsAreMadeInsideTheRoot(t *testing.T) {
	outside := t.TempDir()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"out": outside, "up": "../..", "loop": "loop", "in": "/inner"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	fd := openRoot(t, root)
	for inside, place := range map[string]string{"/a/b": "/a/b", "/in/c": "/inner/c", "/up/d": "/d", "../../e": "/e"} {
		made, err := makeIn(fd, inside, true)
		if err != nil {
			t.Errorf("%s: %v", inside, err)
			continue
		}
		unix.Close(made)
		if got, err := resolveIn(fd, inside); err != nil || got != place {
			t.Errorf("%s: at %q, %v; want %q", inside, got, err, place)
		}
		if found, err := os.Lstat(filepath.Join(root, place)); err != nil || !found.IsDir() {
			t.Errorf("%s: %v", inside, err)
		}
	}
	made, err := makeIn(fd, "/file", false)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(made)
	if found, err := os.Lstat(filepath.Join(root, "file")); err != nil || !found.Mode().IsRegular() {
		t.Errorf("file: %v", err)
	}
	if made, err := makeIn(fd, "/out/x", true); err == nil {
		unix.Close(made)
	}
	if _, err := makeIn(fd, "/loop/x", true); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside: %v, %v", left, err)
	}
}

func TestCgroupBindsOfRestoredContainers(t *testing.T) {
	layout, err := cgroup.Detect()
	if err != nil {
		t.Skip(err)
	}
	location := cgroup.Location{V1: map[string]string{}}
	var want []criu.Pair
	for _, h := range layout.Hierarchies() {
		if h.Name != "" {
			location.V1[h.Name] = h.Mountpoint + "/x"
			want = append(want, criu.Pair{Key: filepath.Base(h.Mountpoint), Value: h.Mountpoint + "/x"})
		}
	}
	spec := &specs.Spec{Linux: &specs.Linux{}}
	mount := &specs.Mount{Type: "cgroup", Destination: "/sys/fs/cgroup"}
	if got := cgroupBinds(layout, spec, mount, location); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.CgroupNamespace}}
	if got := cgroupBinds(layout, spec, mount, location); got != nil {
		t.Errorf("in a namespace: %v", got)
	}
}

// TestExternalFiles: of our own process, with mount tables with and without
// the file's.
func TestExternalFiles(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd := fmt.Sprint(file.Fd())
	var found unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &found); err != nil {
		t.Fatal(err)
	}
	name, err := externalFile("/proc/self", fd, "")
	if err != nil || !strings.HasPrefix(name, "file[") || !strings.HasSuffix(name, fmt.Sprintf(":%x]", found.Ino)) {
		t.Errorf("got %q, %v", name, err)
	}
	var mount int
	if _, err := fmt.Sscanf(name, "file[%x:", &mount); err != nil {
		t.Fatal(err)
	}
	for _, mounts := range []string{fmt.Sprintf("%d 1 0:1 / / rw", mount), fmt.Sprintf("1 1 0:1 / / rw\n%d 1 0:1 / /x rw\n", mount)} {
		if got, err := externalFile("/proc/self", fd, mounts); err != nil || got != "" {
			t.Errorf("in its own mount: got %q, %v", got, err)
		}
	}
	if got, err := externalFile("/proc/self", "1000000", ""); err != nil || got != "" {
		t.Errorf("closed: got %q, %v", got, err)
	}
}

func TestNamespacesOfRestoredContainers(t *testing.T) {
	r := &restore{launch: &launch{spec: &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}, {Type: specs.IPCNamespace, Path: "/proc/self/ns/ipc"},
	}}}}, session: &session{}, version: 40000}
	defer r.session.close()
	if err := r.joinNamespaces(&r.session.options); err != nil {
		t.Fatal(err)
	}
	o := r.session.options
	if !reflect.DeepEqual(o.InheritFDs, []criu.InheritFD{{Key: "extRootNetNS", FD: criu.FirstFD}}) || len(r.session.files) != 1 ||
		!reflect.DeepEqual(o.JoinNamespaces, []criu.Pair{{Key: "ipc", Value: "/proc/self/ns/ipc"}}) {
		t.Errorf("got %+v", o)
	}
	for _, test := range []struct {
		ns      specs.LinuxNamespace
		version int
		kind    errdefs.Kind
	}{
		{specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/none"}, 40000, errdefs.FailedPrecondition},
		{specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/self/ns/net"}, 31000, errdefs.FailedPrecondition},
		{specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/self/ns/pid"}, 31400, errdefs.FailedPrecondition},
		{specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: "/proc/self/ns/cgroup"}, 40000, errdefs.NotImplemented},
	} {
		r := &restore{launch: &launch{spec: &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{test.ns}}}}, session: &session{}, version: test.version}
		if err := r.joinNamespaces(&r.session.options); errdefs.KindOf(err) != test.kind {
			t.Errorf("%+v with criu %d: %v", test.ns, test.version, err)
		}
		r.session.close()
	}
}

func TestDescriptorsOfCheckpoints(t *testing.T) {
	dir := t.TempDir()
	r := &restore{with: &RestoreOptions{Checkpoint: CheckpointOptions{ImagePath: dir}}}
	var o criu.Options
	if err := r.inheritStdio(&o); errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("without the file: %v", err)
	}
	for text, want := range map[string]errdefs.Kind{`{`: errdefs.DataLoss, `["a","b","c","d"]`: errdefs.DataLoss, `["pipe:[7]","/dev/pts/0","file[1:2]"]`: errdefs.Unknown} {
		if err := os.WriteFile(filepath.Join(dir, descriptorsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.inheritStdio(&o); errdefs.KindOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if want := []criu.InheritFD{{Key: "pipe:[7]", FD: 0}, {Key: "file[1:2]", FD: 2}}; !reflect.DeepEqual(o.InheritFDs, want) {
		t.Errorf("got %v, want %v", o.InheritFDs, want)
	}
}

// TestCheckpointWithoutCriu: the container stays as it is.
func TestCheckpointWithoutCriu(t *testing.T) {
	c, _ := process(t)
	opts := CheckpointOptions{Binary: "/no/criu", ImagePath: t.TempDir(), StatusFD: -1}
	err := Checkpoint(t.Context(), c, opts)
	if errdefs.KindOf(err) != errdefs.FailedPrecondition || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "CRIU version check failed: ") {
		t.Errorf("got %v", err)
	}
	if alive, err := c.initAlive(); err != nil || !alive {
		t.Errorf("the process: %v, %v", alive, err)
	}
}
