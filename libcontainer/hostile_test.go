package libcontainer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// climb is a link that leads to a host path from wherever it is read, if the
// runtime follows it by name.
func climb(host string) string { return strings.Repeat("../", 20) + host[1:] }

// outside makes a directory of the host that must stay as it is.
func (s *sandbox) outside() string {
	dir := filepath.Join(s.dir, "outside")
	s.must(os.Mkdir(dir, 0o755))
	s.t.Cleanup(func() {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			s.t.Errorf("the host's directory was changed: %v %v", entries, err)
		}
	})
	return dir
}

// naively does in mount namespaces of its own what a runtime that goes by names
// does to the root file system $ROOT, and wants it to come out as the attack.
func (s *sandbox) naively(script, attack string) {
	s.t.Helper()
	out := s.command("unshare", "--mount", "--propagation", "private", "sh", "-euc", "cd "+s.dir+"; ROOT="+s.path("/")+"\n"+script)
	if got := strings.TrimSpace(out); got != attack {
		s.t.Errorf("the attack does not show on a naive runtime:\n%s\n got: %q\nwant: %q", script, got, attack)
	}
}

// CVE-2019-19921, CVE-2023-27561: /proc and /sys must not go where a link says.
func TestProcAndSysAreNotMountedThroughLinks(t *testing.T) {
	for name, fstype := range map[string]string{"proc": "proc", "sys": "sysfs"} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.must(os.Symlink("/tmp", s.path(name)))
			s.naively("mount -t "+fstype+" none $ROOT/"+name+"; stat -f -c %T /tmp", fstype)
			r := s.run("true")
			if r.err == nil || !strings.Contains(r.err.Error(), `rootfs at "/`+name+`": too many levels of symbolic links`) {
				t.Errorf("got %+v", r)
			}
			s.wantNothingLeft()
		})
	}
}

// CVE-2021-30465, CVE-2024-45310: links in a mount's destination stay inside,
// and nothing is made outside, not even an empty file.
func TestMountTargetsStayInsideTheRoot(t *testing.T) {
	s := newSandbox(t)
	host := s.outside()
	s.must(os.RemoveAll(s.path("etc")))
	s.must(os.Symlink(climb(host), s.path("etc")))
	s.naively("mkdir -p $ROOT/etc/deep; : > $ROOT/etc/deep/hosts; ls outside/deep; rm -r outside/deep", "hosts")
	s.must(os.Symlink(host, s.path("dev")))
	s.must(os.WriteFile(filepath.Join(s.dir, "hosts"), []byte("bound"), 0o644))
	s.spec.Mounts = append(s.spec.Mounts,
		specs.Mount{Destination: "/etc/deep/hosts", Type: "bind", Source: "hosts", Options: []string{"bind"}},
		specs.Mount{Destination: "/etc/run", Type: "tmpfs", Source: "tmpfs"},
	)
	s.want("cat /etc/deep/hosts; echo > /dev/null && stat -c %t,%T /dev/null", "bound1,3")
	if _, err := os.Stat(s.path(host)); err != nil {
		t.Errorf("the links did not lead inside: %v", err)
	}
}

// CVE-2021-30465: between looking a destination up and mounting there, somebody
// who shares the root exchanges a directory of it for a link.
func TestMountTargetsStayInsideARootThatChanges(t *testing.T) {
	s := newSandbox(t)
	host := s.outside()
	s.must(os.Mkdir(s.path("swap"), 0o755))
	s.must(os.Symlink(climb(host), s.path("link")))
	s.naively("mkdir $ROOT/swap/in; target=$(realpath $ROOT/swap/in); rmdir $ROOT/swap/in; mv $ROOT/swap $ROOT/kept; mv $ROOT/link $ROOT/swap; mkdir $target"+
		"; mount -t tmpfs tmpfs $target; stat -f -c %T outside/in; umount outside/in; rmdir outside/in; mv $ROOT/swap $ROOT/link; mv $ROOT/kept $ROOT/swap", "tmpfs")
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			default:
				if err := unix.Renameat2(unix.AT_FDCWD, s.path("swap"), unix.AT_FDCWD, s.path("link"), unix.RENAME_EXCHANGE); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/swap/in", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=12k"}})
	started := 0
	for range 30 {
		r := s.run("grep", "-c", "size=12k", "/proc/self/mountinfo")
		if r.err == nil {
			started++
			if strings.TrimSpace(r.stdout) != "1" {
				t.Errorf("the mount is not in the container: %+v", r)
			}
		}
	}
	close(end)
	<-done
	t.Logf("%d of 30 started", started)
	s.wantNothingLeft()
}

// CVE-2019-16884, CVE-2023-28642, CVE-2025-52881: a link into /proc must not
// let a mount cover what the runtime and LSMs use there.
func TestMountsDoNotReachProcByALink(t *testing.T) {
	s := newSandbox(t)
	s.must(os.Symlink("/proc", s.path("innocent")))
	s.naively("mount -t tmpfs tmpfs $ROOT/innocent/$$/attr; echo label > /proc/$$/attr/exec; stat -f -c %T /proc/$$/attr/exec", "tmpfs")
	s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/innocent/self/attr", Type: "tmpfs", Source: "tmpfs"})
	r := s.run("true")
	if errdefs.KindOf(r.err) != errdefs.PermissionDenied {
		t.Errorf("got %+v", r)
	}
	s.spec.Mounts[len(s.spec.Mounts)-1].Destination = "/proc/self/attr"
	if r := s.run("true"); errdefs.CodeOf(r.err) != errdefs.SpecInvalid {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}

// CVE-2025-31133: the mask of a file is the host's /dev/null, whatever the
// container has there.
func TestMaskIsTheRealNull(t *testing.T) {
	s := newSandbox(t)
	s.must(os.MkdirAll(filepath.Join(s.dir, "dev/pts"), 0o755))
	s.must(os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(s.dir, "dev/null")))
	s.naively("mount --bind dev/null /proc/keys; cmp /proc/keys /proc/sys/kernel/core_pattern && echo core_pattern", "core_pattern")
	s.spec.Mounts[1] = specs.Mount{Destination: "/dev", Type: "bind", Source: "dev", Options: []string{"bind"}}
	s.spec.Linux.MaskedPaths = []string{"/proc/keys"}
	s.want("stat -c %F,%t,%T /proc/keys; cat /proc/keys", "character special file,1,3")
}

// CVE-2025-52565: the terminal is the container's own devpts', by descriptor.
func TestTerminalIsNotTakenFromTheImage(t *testing.T) {
	s := newSandbox(t)
	s.must(os.MkdirAll(filepath.Join(s.dir, "dev/pts"), 0o755))
	s.must(os.WriteFile(filepath.Join(s.dir, "dev/pts/ptmx"), nil, 0o666))
	s.must(os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(s.dir, "dev/pts/0")))
	s.naively(": > dev/console; mount --bind dev/pts/0 dev/console; cmp dev/console /proc/sys/kernel/core_pattern && echo core_pattern", "core_pattern")
	s.must(os.Remove(filepath.Join(s.dir, "dev/console")))
	s.spec.Mounts = append(s.spec.Mounts[:1:1], specs.Mount{Destination: "/dev", Type: "bind", Source: "dev", Options: []string{"bind"}})
	s.spec.Process.Terminal = true
	if r := s.run("true"); errdefs.KindOf(r.err) != errdefs.PermissionDenied {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}

// CVE-2024-21626: no descriptor of the runtime is a way out, as the working
// directory or otherwise.
func TestWorkingDirectoryIsNotADescriptorOfTheRuntime(t *testing.T) {
	s := newSandbox(t)
	s.must(os.Mkdir(s.path("proc"), 0o755))
	s.naively("mount -t proc proc $ROOT/proc; exec 7</; stat -c %d:%i / > host; chroot $ROOT sh -c 'cd /proc/self/fd/7 && stat -c %d:%i .' | cmp - host && echo the host", "the host")
	for fd := 3; fd < 24; fd++ {
		s.spec.Process.Cwd = "/proc/self/fd/" + strconv.Itoa(fd)
		r := s.run("sh", "-c", "stat -c %d:%i / "+strings.Repeat("../", 40))
		// A directory of the container's own is allowed.
		if top := strings.Fields(r.stdout); r.err == nil && (len(top) != 2 || top[0] != top[1]) {
			t.Errorf("%s: the process is outside: %+v", s.spec.Process.Cwd, r)
		}
	}
	s.wantNothingLeft()
}

// CVE-2016-9962, CVE-2019-5736: the runtime's binary, which waits in the container until
// start, is hidden from the container's processes; one that may trace can open
// it, but not to write.
func TestRuntimeBinaryCannotBeWritten(t *testing.T) {
	s := newSandbox(t)
	s.naively(`
		cp /bin/busybox sh; mkfifo go
		./sh -c 'read x; exec /bin/busybox sleep 1000' <go & exec 6>go
		runs() { readlink /proc/$!/exe | grep -q "^$PWD/sh$"; }
		until runs; do kill -0 $!; done
		exec 5</proc/$!/exe; echo >&6; while runs; do kill -0 $!; done
		echo overwritten >> /proc/self/fd/5 || :; kill $!; tail -n 1 sh | grep -ao 'overwritten$'`, "overwritten")
	s.spec.Process.Args = []string{"sleep", "100"}
	// A copy, because this test itself keeps the original busy.
	binary, err := os.ReadFile("/proc/self/exe")
	s.must(err)
	s.binary = filepath.Join(s.dir, "runtime")
	s.must(os.WriteFile(s.binary, binary, 0o755))
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	s.binary = "/proc/self/exe"
	process := *s.spec.Process
	process.Args = []string{"sh", "-c", "exec 5</proc/1/exe"}
	if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); !strings.Contains(r.stderr, "Permission denied") {
		t.Errorf("the runtime's binary can be opened: %+v", r)
	}
	caps := []string{"CAP_SYS_PTRACE"}
	process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	process.Args = []string{"sh", "-c", `
		exec 5</proc/1/exe; echo opened
		while ! readlink /proc/1/exe | grep -q busybox; do :; done
		sh -c 'echo x >> /proc/self/fd/5' 2>/result || :`}
	wait := s.background(runtimeCall{Verb: "exec", Process: &process})
	if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 {
		t.Error(r.stderr)
	}
	wait()
	result, err := os.ReadFile(s.path("result"))
	if err != nil || !strings.Contains(string(result), "Read-only file system") {
		t.Errorf("the runtime's binary can be written: %s %v", result, err)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	s.must(c.killInit())
}

// CVE-2016-9962 once more: who may trace others in the container sees the host by the
// root or the descriptors of whatever of the runtime it can see. It sees nothing that
// still has any: not exec on its way in, nor what waits for start or runs hooks.
func TestTracersDoNotSeeTheHost(t *testing.T) {
	s := newSandbox(t)
	mark := filepath.Join(s.dir, "mark")
	s.must(os.WriteFile(mark, nil, 0o644))
	caps := []string{"CAP_SYS_PTRACE"}
	s.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	look := `for way in /proc/[0-9]*/root /proc/[0-9]*/cwd /proc/[0-9]*/fd/[0-9]* /proc/[0-9]*/fd/[0-9]*/1/root; do
		if [ -e $way` + mark + ` ]; then echo $way >> /found; fi; done`
	s.spec.Process.Args = []string{"sh", "-c", "while :; do " + look + "; [ $looked ] || echo > /looked; looked=1; done"}
	s.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", look}}}}
	found := func() string {
		data, _ := os.ReadFile(s.path("found"))
		return string(data)
	}
	looked := s.event(s.path("looked"))
	leaked, err := os.Open("/")
	s.must(err)
	defer leaked.Close()
	s.extra = []*os.File{leaked} // of a careless caller
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	process := *s.spec.Process
	process.Args = []string{"sh", "-c", look}
	if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); r.status != 0 || found() != "" {
		t.Errorf("before start: %+v, seen from exec: %s", r, found())
	}
	if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 || found() != "" {
		t.Errorf("start: %+v, seen from a hook: %s", r, found())
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	looked()
	process.Args = []string{"true"}
	for range 100 {
		if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); r.status != 0 {
			t.Fatal(r.stderr)
		}
	}
	if found() != "" {
		t.Errorf("exec was seen with the host's root: %s", found())
	}
	s.command("nsenter", "--target", strconv.Itoa(c.State.Pid), "--pid", "sh", "-c", "until [ -s "+s.path("found")+" ]; do :; done")
	s.must(c.killInit())
}

// event makes a fifo; the returned function waits until somebody has written to it.
func (s *sandbox) event(path string) (await func()) {
	s.t.Helper()
	s.must(unix.Mkfifo(path, 0o600))
	fifo, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	s.must(err)
	s.t.Cleanup(func() { fifo.Close() })
	return func() {
		s.t.Helper()
		s.must(fifo.SetReadDeadline(time.Now().Add(20 * time.Second)))
		_, err := fifo.Read(make([]byte, 1))
		s.must(err)
	}
}

// What a container is made of is the host's until it is made: nobody is to enter it.
func TestContainerIsThereWhenItIsMade(t *testing.T) {
	s := newSandbox(t)
	there, gone := filepath.Join(s.dir, "there"), filepath.Join(s.dir, "go")
	await := s.event(there)
	s.must(unix.Mkfifo(gone, 0o600))
	s.spec.Process.Args = []string{"sleep", "100"}
	s.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo > " + there + "; read -r x < " + gone + "; exit 3"}}}}
	done := make(chan result, 1)
	call := *s // the sandbox's own files are for one call at a time
	go func() { done <- call.runtime(runtimeCall{Verb: "create"}) }()
	await()
	if _, err := Open(s.create.Root, s.create.ID); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
		t.Errorf("while it is being made: %v", err)
	}
	if _, err := Reserve(s.create.Root, s.create.ID); errdefs.CodeOf(err) != errdefs.NameTaken {
		t.Errorf("its name is not taken: %v", err)
	}
	s.must(os.WriteFile(gone, []byte("on\n"), 0))
	if r := <-done; r.err == nil || !strings.Contains(r.stderr, "exit status 3") {
		t.Errorf("%+v", r)
	}
	s.wantNothingLeft()
}
