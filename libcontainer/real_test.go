package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

func TestRunPassesOutputAndStatus(t *testing.T) {
	s := newSandbox(t)
	s.stdin = "hello"
	r := s.run("sh", "-c", "cat; exit 7")
	if r.stdout != "hello" || r.status != 7 {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}

func TestProcessSeesWhatTheSpecSays(t *testing.T) {
	s := newSandbox(t)
	s.spec.Hostname, s.spec.Domainname = "box", "example.org"
	s.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "81", "kernel.shm_rmid_forced": "1"}
	s.spec.Linux.ReadonlyPaths = []string{"/proc/sys", "/absent"}
	s.spec.Linux.MaskedPaths = []string{"/proc/keys", "/proc/acpi", "/sys/firmware", "/absent"}
	s.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 99}}
	out := s.sh(`
		echo host $(hostname) $(cat /proc/sys/kernel/domainname)
		echo pid $$
		echo sysctl $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced)
		echo masked $(cat /proc/keys | wc -c) $(ls /sys/firmware | wc -l)
		(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo readonly
		echo limit $(ulimit -n) $(ulimit -Hn)
		echo loopback $(ip -o link | grep -c LOOPBACK,UP)
		echo home $HOME umask $(umask) cwd $PWD
		echo links $(readlink /dev/fd) $(readlink /dev/ptmx) $(readlink /dev/stdout)
		echo cgroups elsewhere $(grep -vc ":` + s.spec.Linux.CgroupsPath + `$" /proc/self/cgroup)
		echo null $(stat -c %F,%a,%t,%T /dev/null)
		echo session $(cat /proc/self/stat | grep -c "^[0-9]* (cat) R 1 1 1 ")`)
	want := `host box example.org
pid 1
sysctl 81 1
masked 0 0
readonly
limit 77 99
loopback 1
home /root umask 0022 cwd /
links /proc/self/fd pts/ptmx /proc/self/fd/1
cgroups elsewhere 0
null character special file,666,1,3
session 0`
	if out != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}

func TestFilterIsLoadedAndCapabilityForItIsGone(t *testing.T) {
	for _, noNewPrivs := range []bool{true, false} {
		t.Run(fmt.Sprint(noNewPrivs), func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Process.NoNewPrivileges = noNewPrivs
			errno := uint(95)
			s.spec.Linux.Seccomp = &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &errno}},
			}
			s.want(`grep -E "Seccomp:|CapEff" /proc/self/status; mkdir /x 2>&1`+" || true",
				"CapEff:\t0000000000000020\nSeccomp:\t2\nmkdir: can't create directory '/x': Operation not supported")
		})
	}
}

func TestReadonlyRootStillHasItsDevicesAndDirectory(t *testing.T) {
	s := newSandbox(t)
	s.spec.Root.Readonly = true
	s.spec.Process.Cwd = "/work/dir"
	s.want(`pwd; touch /x 2>/dev/null || echo read-only; echo > /dev/null && echo null works`, "/work/dir\nread-only\nnull works")
}

func TestSpecDevicesWinOverDefaults(t *testing.T) {
	s := newSandbox(t)
	mode, uid := os.FileMode(0o640), uint32(7)
	s.spec.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &uid},
		{Path: "/dev/fifo", Type: "p", FileMode: &mode},
		{Path: "/dev/deep/loop", Type: "b", Major: 7, Minor: 0},
	}
	s.want(`stat -c "%a %u %F" /dev/null /dev/fifo /dev/deep/loop`, "640 7 character special file\n640 0 fifo\n666 0 block special file")
}

func TestOnlyTheProcessDescriptorsAreOpen(t *testing.T) {
	s := newSandbox(t)
	// What sh has open besides its stdio is what leaked: ls opens one more.
	s.want(`ls /proc/1/fd; :`, "0\n1\n2")
	file, err := os.CreateTemp(s.dir, "extra")
	s.must(err)
	defer file.Close()
	file.WriteString("from 3")
	file.Seek(0, 0)
	s.extra, s.create.PreserveFDs = []*os.File{file}, 1
	s.want(`ls /proc/1/fd; cat <&3`, "0\n1\n2\n3\nfrom 3")
	s.create.PreserveFDs = 2
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), "preserved-fd 1 (of 2)") {
		t.Errorf("a descriptor that is not there: %+v", r)
	}
}

// What systemd gave to an ancestor of the runtime is not the container's.
func TestActivatedSocketsAreThoseOfTheRuntime(t *testing.T) {
	s := newSandbox(t)
	file, err := os.Open("/dev/null")
	s.must(err)
	defer file.Close()
	self, err := os.Executable()
	s.must(err)
	s.extra, s.binary = []*os.File{file}, filepath.Join(s.dir, "activated")
	for pid, want := range map[string]string{"$$": "0\n1\n2\n3\n1 1", "1": "0\n1\n2", "": "0\n1\n2"} {
		s.must(os.WriteFile(s.binary, []byte("#!/bin/sh\nLISTEN_FDS=1 LISTEN_PID="+pid+" exec "+self+"\n"), 0o755))
		s.want(`ls /proc/1/fd; echo $LISTEN_FDS $LISTEN_PID`, want)
	}
}

func TestFailuresAreClassifiedAndLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code errdefs.Code
		text string
		with func(*sandbox)
	}{
		{"not in PATH", []string{"nope"}, errdefs.ExecNotFound, `exec: "nope": executable file not found in $PATH`, nil},
		{"no such file", []string{"/nope"}, errdefs.ExecNotFound, `exec: "/nope": stat /nope: no such file or directory`, nil},
		{"not executable", []string{"/etc/passwd"}, errdefs.ExecPermission, `exec: "/etc/passwd": permission denied`, nil},
		{"directory", []string{"/etc"}, errdefs.ExecIsDirectory, `exec: "/etc": is a directory`, nil},
		{"format", []string{"/bad"}, errdefs.ExecFormat, `exec /bad: exec format error`, func(s *sandbox) {
			s.must(os.WriteFile(s.path("bad"), []byte("nonsense"), 0o755))
		}},
		{"interpreter", []string{"/script"}, errdefs.ExecNotFound, `exec /script: no such file or directory`, func(s *sandbox) {
			s.must(os.WriteFile(s.path("script"), []byte("#!/nope\n"), 0o755))
		}},
		{"bind source", []string{"true"}, "", `error mounting "/nope" to rootfs at "/x": stat /nope: no such file or directory`, func(s *sandbox) {
			s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nope", Options: []string{"rbind"}})
		}},
		{"file system", []string{"true"}, "", `error mounting "x" to rootfs at "/x": no such device`, func(s *sandbox) {
			s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/x", Type: "nofs", Source: "x"})
		}},
		{"sysctl", []string{"true"}, "", `setting sysctl net.ipv4.nope: no such file or directory`, func(s *sandbox) {
			s.spec.Linux.Sysctl = map[string]string{"net.ipv4.nope": "1"}
		}},
		{"namespace", []string{"true"}, "", `joining network namespace "/nope": no such file or directory`, func(s *sandbox) {
			s.setNamespace(specs.NetworkNamespace, "/nope")
		}},
		{"cpu quota", []string{"true"}, errdefs.SpecInvalid, `linux.resources.cpu.quota`, func(s *sandbox) {
			quota := int64(1)
			s.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota}}
		}},
		{"cpus", []string{"true"}, errdefs.SpecInvalid, `linux.resources.cpu.cpus`, func(s *sandbox) {
			s.spec.Linux.Resources = &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}
		}},
		{"invalid spec", []string{"true"}, errdefs.SpecInvalid, `process.cwd: Cwd must be an absolute path`, func(s *sandbox) {
			s.spec.Process.Cwd = "x"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, verb := range []string{"run", "create"} {
				s := newSandbox(t)
				if c.with != nil {
					c.with(s)
				}
				s.spec.Process.Args = c.args
				if verb == "create" && c.code == errdefs.ExecFormat || verb == "create" && c.name == "interpreter" {
					continue // only execve finds out
				}
				r := s.runtime(runtimeCall{Verb: verb})
				if r.err == nil {
					t.Fatalf("%s: status %d, %s", verb, r.status, r.stderr)
				}
				if errdefs.CodeOf(r.err) != c.code || !strings.Contains(r.err.Error(), c.text) {
					t.Errorf("%s: %q %q\nwant %q %q", verb, r.err.Code, r.err, c.code, c.text)
				}
				s.wantNothingLeft()
			}
		})
	}
}

// The kernel kills the process before it can say anything, and before a run that does
// not wait for it could tell from its status.
func TestTooLittleMemoryToStart(t *testing.T) {
	for name, call := range map[string]runtimeCall{"create": {Verb: "create"}, "run": {Verb: "run"}, "run detached": {Verb: "run", Detach: true}} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			limit := int64(16 << 10)
			s.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
			s.spec.Process.Args = []string{"sleep", "100"}
			r := s.runtime(call)
			if r.err == nil || errdefs.CodeOf(r.err) != errdefs.OOM || !strings.Contains(r.err.Error(), "container init was OOM-killed (memory limit too low?)") {
				t.Errorf("%+v, %s", r, r.stderr)
			}
			s.wantNothingLeft()
		})
	}
}

// The process is there already when the rest of its cgroup turns out to be another's.
func TestCgroupOfOthers(t *testing.T) {
	s := newSandbox(t)
	const freezer = "/sys/fs/cgroup/freezer" // which is asked who is there
	if _, err := os.Stat(filepath.Join(freezer, "tasks")); err != nil {
		t.Skip("needs v1's freezer: ", err)
	}
	theirs := filepath.Join(freezer, s.spec.Linux.CgroupsPath)
	s.must(os.MkdirAll(theirs, 0o755))
	other := exec.Command("sleep", "1000")
	s.must(other.Start())
	t.Cleanup(func() { // leaves what is above, as all of these tests do
		_ = other.Process.Kill()
		_ = other.Wait()
		s.must(cgroup.At(cgroup.Location{V1: map[string]string{"freezer": theirs}}).Remove(context.Background()))
		s.wantNothingLeft()
	})
	s.must(os.WriteFile(filepath.Join(theirs, "cgroup.procs"), []byte(strconv.Itoa(other.Process.Pid)), 0))
	for _, verb := range []string{"run", "create"} {
		s.spec.Process.Args = []string{"sleep", "100"}
		r := s.runtime(runtimeCall{Verb: verb})
		if r.err == nil || errdefs.KindOf(r.err) != errdefs.FailedPrecondition || !strings.Contains(r.err.Error(), "container's cgroup is not empty: 1 process(es) found") {
			t.Errorf("%s: %+v, %s", verb, r, r.stderr)
		}
		if left, err := filepath.Glob("/sys/fs/cgroup/*" + s.spec.Linux.CgroupsPath); err != nil || !slices.Equal(left, []string{theirs}) {
			t.Errorf("%s: left are %v, %v", verb, left, err)
		}
		if procs, err := os.ReadFile(filepath.Join(theirs, "cgroup.procs")); err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(other.Process.Pid) {
			t.Errorf("%s: in theirs are %q, %v", verb, procs, err)
		}
	}
}

// A filter may forbid all that the stage has left to do, to end itself as well.
func TestFilterThatAllowsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		allowed []string
		action  specs.LinuxSeccompAction
	}{"errno": {nil, specs.ActErrno}, "trace": {nil, specs.ActTrace}, "but to end": {[]string{"exit_group"}, specs.ActErrno}} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: c.action, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64}}
			if c.allowed != nil {
				s.spec.Linux.Seccomp.Syscalls = []specs.LinuxSyscall{{Names: c.allowed, Action: specs.ActAllow}}
			}
			if r := s.run("true"); r.err == nil || !strings.Contains(r.stderr, "process ended before it had executed its command") {
				t.Errorf("run: %+v %s", r, r.stderr)
			}
			s.wantNothingLeft()
			for _, verb := range []string{"create", "start"} {
				if r := s.runtime(runtimeCall{Verb: verb}); r.status != 0 {
					t.Fatal(verb, r.stderr)
				}
			}
			container, err := Open(s.create.Root, s.create.ID)
			s.must(err)
			s.must(waitStopped(t, container))
			s.must(Delete(t.Context(), container.Root, container.ID, false))
		})
	}
}

// waitStopped waits for the end of a process that is not our child.
func waitStopped(t *testing.T, c *Container) error {
	t.Helper()
	fd, err := c.pidfd()
	if errdefs.CodeOf(err) == errdefs.NotRunning {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return awaitExit(ctx, fd)
}

// setNamespace sets the path of one.
func (s *sandbox) setNamespace(kind specs.LinuxNamespaceType, path string) {
	for i := range s.spec.Linux.Namespaces {
		if s.spec.Linux.Namespaces[i].Type == kind {
			s.spec.Linux.Namespaces[i].Path = path
			return
		}
	}
	s.spec.Linux.Namespaces = append(s.spec.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
}

func TestCreateWaitsForStart(t *testing.T) {
	s := newSandbox(t)
	s.create.PidFile = filepath.Join(s.dir, "pid")
	s.spec.Process.Args = []string{"sh", "-c", "echo started > /mark; sleep 100"}
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatalf("create: %s", r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	if pid, _ := os.ReadFile(s.create.PidFile); string(pid) != fmt.Sprint(c.State.Pid) {
		t.Errorf("pid file %q, state %d", pid, c.State.Pid)
	}
	s.wantStatus(c, Created)
	if _, err := os.Stat(s.path("mark")); err == nil {
		t.Error("the process runs before start")
	}
	if r := s.runtime(runtimeCall{Verb: "create"}); errdefs.CodeOf(r.err) != errdefs.NameTaken {
		t.Errorf("a second create: %+v", r)
	}
	if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 {
		t.Fatalf("start: %s", r.stderr)
	}
	s.wantStatus(c, Running)
	if r := s.runtime(runtimeCall{Verb: "start"}); errdefs.CodeOf(r.err) != errdefs.AlreadyStarted {
		t.Errorf("a second start: %+v", r)
	}
	s.must(c.killInit())
}

func (s *sandbox) wantStatus(c *Container, want Status) {
	s.t.Helper()
	if got, err := c.Status(); err != nil || got != want {
		s.t.Errorf("status %q (%v), want %q", got, err, want)
	}
}

func TestExecJoinsTheContainer(t *testing.T) {
	s := newSandbox(t)
	s.spec.Hostname = "inside"
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	process := *s.spec.Process
	process.Args = []string{"sh", "-c", `hostname; readlink /proc/1/ns/net /proc/self/ns/net | sort -u | wc -l; grep -c ` + s.spec.Linux.CgroupsPath + ` /proc/self/cgroup; ls /proc/$$/fd; id -u; exit 9`}
	process.User.UID = 1000
	process.Env = append(process.Env, "X=y")
	r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
	lines := strings.Fields(r.stdout)
	if r.status != 9 || len(lines) != 7 || lines[0] != "inside" || lines[2] == "0" || strings.Join(lines[3:], " ") != "0 1 2 1000" {
		t.Errorf("got %+v", r)
	}
	process.Args = []string{"nope"}
	if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); errdefs.CodeOf(r.err) != errdefs.ExecNotFound {
		t.Errorf("got %+v", r)
	}
	s.must(c.killInit())
	s.must(waitGone(c.State.Pid))
	if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); errdefs.CodeOf(r.err) != errdefs.NotRunning {
		t.Errorf("exec in a stopped container: %+v", r)
	}
}

// A v2 cgroup that hands a controller down takes in no more processes: what runs
// systemd or an engine of its own has moved its first process below.
func TestExecFollowsTheFirstProcessBelowItsCgroup(t *testing.T) {
	s := newSandbox(t)
	c := s.running()
	dir := c.State.Cgroup.V2
	available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	controller := ""
	for _, one := range []string{"memory", "io", "hugetlb"} { // pids and cpu would not keep processes out
		if slices.Contains(strings.Fields(string(available)), one) {
			controller = one
		}
	}
	if controller == "" {
		t.Skip("the container's v2 cgroup has no controller")
	}
	s.must(os.Mkdir(filepath.Join(dir, "init"), 0o755))
	s.must(os.WriteFile(filepath.Join(dir, "init/cgroup.procs"), []byte(strconv.Itoa(c.State.Pid)), 0))
	s.must(os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0))
	if r := s.exec("grep ^0:: /proc/self/cgroup"); !strings.HasSuffix(r.stdout, "/init\n") {
		t.Errorf("got %+v", r)
	}
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
	s.wantNothingLeft()
}

// waitGone waits for the end of a process that is not our child.
func waitGone(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	return err
}

func TestNamespacesAreJoinedByPath(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"sleep", "100"}
	s.spec.Hostname = "first"
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	first, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	second := newSandbox(t)
	for kind, name := range map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "pid", specs.NetworkNamespace: "net", specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc"} {
		second.setNamespace(kind, fmt.Sprintf("/proc/%d/ns/%s", first.State.Pid, name))
	}
	out := second.sh("hostname; for n in pid net uts ipc; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 100'")
	var want []string
	for _, name := range []string{"pid", "net", "uts", "ipc"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", first.State.Pid, name))
		s.must(err)
		want = append(want, link)
	}
	if !strings.HasPrefix(out, "first\n"+strings.Join(want, "\n")) || strings.HasSuffix(out, "\n0") {
		t.Errorf("got:\n%s\nwant: first, %v", out, want)
	}
	s.must(first.killInit())
}

// Each of the newer system calls has a fallback, with the same result.
func TestOlderKernels(t *testing.T) {
	for _, missing := range [][]string{
		{"openat2"}, {"open_tree"}, {"move_mount"}, {"mount_setattr"}, {"fsopen"}, {"close_range"}, {"clone3"}, {"pidfd_open"}, {"memfd_secret", "faccessat2"},
		{"openat2", "open_tree", "move_mount", "mount_setattr", "fsopen", "close_range", "clone3", "pidfd_open"},
	} {
		t.Run(strings.Join(missing, ","), func(t *testing.T) {
			s := newSandbox(t)
			s.without = missing
			s.must(os.WriteFile(filepath.Join(s.dir, "file"), []byte("bound"), 0o644))
			s.must(os.Symlink("/absent/further", s.path("link")))
			s.must(os.MkdirAll(s.path("absent"), 0o755))
			s.spec.Mounts = append(s.spec.Mounts,
				specs.Mount{Destination: "/link/../x/file", Type: "bind", Source: "file", Options: []string{"bind", "ro", "noexec"}},
				specs.Mount{Destination: "/link/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}})
			s.spec.Linux.MaskedPaths = []string{"/proc/keys", "/proc/acpi", "/sys/firmware"}
			s.spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
			s.spec.Root.Readonly = true
			s.spec.Process.Args = []string{"sleep", "100"}
			if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
				t.Fatal(r.stderr)
			}
			process := *s.spec.Process
			process.Args = []string{"sh", "-c", `hostname; cat /x/file; echo; ls /proc/$$/fd; cat /proc/keys | wc -c; ls /sys/firmware | wc -l
				touch /y || touch /absent/further/t/y || echo x > /x/file || echo x > /proc/sys/kernel/domainname`}
			r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
			lines := strings.Fields(r.stdout)
			if len(lines) == 0 || strings.Join(lines[1:], " ") != "bound 0 1 2 0 0" || strings.Count(r.stderr, "Read-only file system") != 4 {
				t.Errorf("got %+v", r)
			}
			c, err := Open(s.create.Root, s.create.ID)
			s.must(err)
			unix.Kill(c.State.Pid, unix.SIGKILL)
		})
	}
}

// vm.memfd_noexec is of a pid namespace, and so that test runs in one.
func TestCopyIsExecutedWhereMemoryFilesAreNot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces")
	}
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		t.Skip("this kernel has none: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		`echo 1 > /proc/sys/vm/memfd_noexec || exit 77; exec "$0" -test.v -test.run '^TestOlderKernels$/^mount_setattr$'`, self).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 77:
		t.Skipf("vm.memfd_noexec cannot be set here: %s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: TestOlderKernels/mount_setattr"):
		t.Errorf("%v: %s", err, out)
	}
}

func TestPausedContainerIsNotStarted(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"true"}
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	s.must(Pause(t.Context(), c))
	if r := s.runtime(runtimeCall{Verb: "start"}); errdefs.CodeOf(r.err) != errdefs.Paused || !strings.Contains(r.stderr, "cannot start a container in the paused state") {
		t.Errorf("%+v", r)
	}
	s.must(Resume(t.Context(), c))
	s.must(Delete(t.Context(), c.Root, c.ID, true))
}

func TestProfileThatSaysNothingIsNone(t *testing.T) {
	s := newSandbox(t)
	s.spec.Linux.Seccomp = &specs.LinuxSeccomp{}
	s.want("grep Seccomp: /proc/self/status", "Seccomp:\t0")
}

func TestRootCanBeMovedAndShared(t *testing.T) {
	s := newSandbox(t)
	s.create.NoPivot = true
	s.want("cat /proc/1/comm; ls -d /bin /work 2>/dev/null || :", "sh\n/bin")
	// With a whole procfs or sysfs of the host's in the namespace who makes a user
	// namespace may mount another, without masks.
	s.spec.Linux.MaskedPaths = []string{"/proc/timer_list", "/sys/firmware"}
	s.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	for _, fsType := range []string{"proc", "sysfs"} {
		s.want("busybox unshare -Urpnmf mount -t "+fsType+" none /tmp 2>/dev/null || echo refused", "refused")
	}
	s.spec.Process.User = specs.User{}
	s.spec.Linux.RootfsPropagation = "private"
	if r := s.run("true"); r.err == nil || !strings.Contains(r.stderr, "not safe without pivot_root") {
		t.Errorf("%+v", r)
	}
	s.create.NoPivot = false
	s.spec.Linux.RootfsPropagation = "rshared"
	s.want(`grep -c " / rw,relatime shared:" /proc/self/mountinfo`, "1")
	s.spec.Linux.RootfsPropagation = "private"
	s.want("mount -t tmpfs x /tmp 2>/dev/null; grep -c shared: /proc/self/mountinfo || true", "0")
}
