package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

// newer are the system calls that an older kernel, or the filter of a container
// around the runtime, does not have; runtimes have to do without.
var newer = map[string]uint32{
	"openat2": unix.SYS_OPENAT2, "clone3": unix.SYS_CLONE3, "pidfd_open": unix.SYS_PIDFD_OPEN,
	"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "mount_setattr": unix.SYS_MOUNT_SETATTR,
	"open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT, "fsopen": unix.SYS_FSOPEN,
	"close_range": unix.SYS_CLOSE_RANGE, "faccessat2": unix.SYS_FACCESSAT2, "epoll_pwait2": unix.SYS_EPOLL_PWAIT2,
}

// withoutVariable holds, in a child of this binary, what to take away from the
// program that its arguments name.
const withoutVariable = "ENGINED_TEST_WITHOUT"

// execWithout becomes the program, with the system calls answering ENOSYS.
func execWithout(numbers string) error {
	var missing []uint32
	if err := json.Unmarshal([]byte(numbers), &missing); err != nil {
		return err
	}
	if err := os.Unsetenv(withoutVariable); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := takeAway(missing); err != nil {
		return fmt.Errorf("loading a filter: %w", err)
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// takeAway loads a filter: the number is compared with one after the other.
func takeAway(numbers []uint32) error {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // seccomp_data.nr is at 0
	for i, number := range numbers {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jt: uint8(len(numbers) - i)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}, // SECCOMP_RET_ALLOW
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | uint32(unix.ENOSYS)}) // SECCOMP_RET_ERRNO
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// All threads: Go's exec may be called from any.
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return errno
	}
	return nil
}

// lacking returns the runtime as it is where the system calls do not exist.
func lacking(t *testing.T, r bundle.Runtime, names ...string) bundle.Runtime {
	t.Helper()
	numbers := []uint32{} // none: a filter that allows everything
	for _, name := range names {
		number, known := newer[name]
		if !known {
			t.Fatalf("%s is not in the table", name)
		}
		numbers = append(numbers, number)
	}
	encoded, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.Env = append(r.Env, withoutVariable+"="+string(encoded))
	r.Path, r.Args = self, append([]string{r.Path}, r.Args...)
	return r
}

func TestOlderKernels(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.TempDir(t)
	ocirun := bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root"), Run: adopt(t).run}
	sets := map[string][]string{"all": nil}
	for name := range newer {
		sets[name] = []string{name}
		sets["all"] = append(sets["all"], name)
	}
	for name, spec := range olderSpecs(filepath.Base(dir)) {
		want := life(t, lacking(t, ocirun), filepath.Join(dir, name), spec)
		for set, missing := range sets {
			if name == "host-pid" && !strings.HasPrefix(set, "pidfd") && set != "all" {
				continue // the namespace makes no difference to mounts
			}
			t.Run(name+"/"+set, func(t *testing.T) {
				got := life(t, lacking(t, ocirun, missing...), filepath.Join(dir, name+set), spec)
				wantSame(t, got, want)
			})
		}
	}
}

// wantSame compares line by line.
func wantSame(t *testing.T, got, want string) {
	t.Helper()
	ours, theirs := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(ours), len(theirs)) {
		if i >= len(ours) || i >= len(theirs) {
			t.Fatalf("%d lines, want %d", len(ours), len(theirs))
		}
		if ours[i] != theirs[i] {
			t.Fatalf("line %d is %q, want %q", i, ours[i], theirs[i])
		}
	}
}

// olderSpecs are two containers whose mounts and devices take all kinds of
// calls.
func olderSpecs(id string) map[string]*specs.Spec {
	docker, plain := bundle.Docker(id), bundle.Plain(id)
	plain.Mounts = append(plain.Mounts,
		specs.Mount{Destination: "/home/deep", Type: "bind", Source: "etc", Options: []string{"rbind", "ro", "nosuid", "noexec", "rslave"}},
		specs.Mount{Destination: "/home/file", Type: "bind", Source: "etc/hosts", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "size=1m"}})
	plain.Linux.MaskedPaths = append(plain.Linux.MaskedPaths, "/etc/passwd", "/home/deep")
	plain.Linux.Namespaces = append(plain.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	plain.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer(int64(33))}
	shared := bundle.Plain(id) // processes of their own pid namespace end otherwise than those of the host's
	without(shared, specs.PIDNamespace)
	return map[string]*specs.Spec{"docker": docker, "plain": plain, "host-pid": shared}
}

// changing is what differs between two lives.
var changing = regexp.MustCompile(`ino=\d+|\bSeccomp_filters:.*|/tmp/eit-[^ ]*|time="[^"]*"`)

// awaitCommand waits until the container's process has become that program.
func awaitCommand(t *testing.T, r bundle.Runtime, dir, id, name string) {
	t.Helper()
	out, err := callDetached(r, dir, "state", id)
	if err != nil {
		t.Fatal(err)
	}
	var state specs.State
	if err := json.Unmarshal([]byte(out.Stdout), &state); err != nil {
		t.Fatalf("%v: %s", err, out.Stdout)
	}
	comm := ""
	for end := deadline(); time.Now().Before(end); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", state.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if comm = strings.TrimSpace(string(text)); comm == name {
			return
		}
	}
	t.Fatalf("the process of %s is still %q, want %q", id, comm, name)
}

// life takes a container through its verbs and returns what all of it showed.
func life(t *testing.T, r bundle.Runtime, dir string, spec *specs.Spec) string {
	t.Helper()
	id := filepath.Base(filepath.Dir(dir))
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Call(dir, "delete", "--force", id) })
	var shown strings.Builder
	call := func(want int, args ...string) {
		t.Helper()
		out, err := callDetached(r, dir, args...)
		if err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		if out.Status != want {
			t.Errorf("%s: status %d, want %d: %s", args, out.Status, want, out.Stdout)
		}
		fmt.Fprintf(&shown, "%s: %d\n%s", args[0], out.Status, changing.ReplaceAllString(out.Stdout, "X"))
	}
	call(0, "create", id)
	call(0, "start", id)
	awaitCommand(t, r, dir, id, "sleep") // start does not wait for execve
	call(0, "exec", id, "/bin/sh", "-c", look)
	call(7, "exec", id, "/bin/sh", "-c", "exit 7")
	call(0, "exec", "-d", id, "/bin/sleep", "1000")
	call(0, "pause", id)
	call(0, "resume", id)
	call(1, "delete", id)
	call(0, "kill", id, "KILL")
	awaitStopped(t, r, dir, id)
	call(0, "delete", id)
	spec.Process.Args = []string{"/bin/sh", "-c", look + "exit 3"}
	if err := bundle.WriteConfig(dir, spec); err != nil {
		t.Fatal(err)
	}
	call(3, "run", id)
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	if err := bundle.WriteConfig(dir, spec); err != nil {
		t.Fatal(err)
	}
	call(0, "run", "-d", id)
	call(0, "delete", "--force", id)
	call(1, "state", id)
	return shown.String()
}

// What has no other way says so, names the mount, and leaves nothing.
func TestFeaturesThatNeedNewerKernels(t *testing.T) {
	harness.NeedRoot(t)
	dir := harness.TempDir(t)
	id := filepath.Base(dir)
	ocirun := bundle.Runtime{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(dir, "root")}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
	for name, test := range map[string]struct {
		missing string
		mount   specs.Mount
	}{
		"idmap without mount_setattr":     {"mount_setattr", specs.Mount{Type: "bind", Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids}},
		"idmap without open_tree":         {"open_tree", specs.Mount{Type: "bind", Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids}},
		"idmap without move_mount":        {"move_mount", specs.Mount{Type: "bind", Options: []string{"bind", "idmap"}, UIDMappings: ids, GIDMappings: ids}},
		"recursive without mount_setattr": {"mount_setattr", specs.Mount{Type: "bind", Options: []string{"rbind", "rro"}}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := bundle.Plain(id)
			test.mount.Source, test.mount.Destination = "etc", "/mnt/there"
			spec.Root.Readonly = false
			spec.Mounts = append(spec.Mounts, test.mount)
			inside := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			if err := bundle.Make(inside, spec); err != nil {
				t.Fatal(err)
			}
			if out, err := ocirun.Call(inside, "run", id); err != nil || out.Status != 0 {
				t.Skipf("not possible here at all: %v %+v", err, out)
			}
			out, err := lacking(t, ocirun, test.missing).Call(inside, "run", id)
			if err != nil || out.Status != 1 || !strings.Contains(out.Stderr, "/mnt/there") || !strings.Contains(out.Stderr, test.missing) {
				t.Errorf("%v %+v: its message should name /mnt/there and %s", err, out, test.missing)
			}
			if out, err := ocirun.Call(inside, "delete", id); err != nil || out.Status != 1 {
				t.Errorf("it left a container: %v %+v", err, out)
			}
		})
	}
}
