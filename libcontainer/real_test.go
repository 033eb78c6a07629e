package libcontainer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/proto/errdefs"
)

// The test binary is its own runtime: with runtimeEnv set it carries out one
// verb, as ocirun would, and its children run the stage.
const runtimeEnv = "LIBCONTAINER_TEST_RUNTIME"

type runtimeCall struct {
	Verb    string
	Create  CreateOptions
	Detach  bool
	Process *specs.Process // exec
	Without []string       // system calls that answer ENOSYS, as on an old kernel
}

func TestMain(m *testing.M) {
	if encoded := os.Getenv(runtimeEnv); encoded != "" {
		os.Unsetenv(runtimeEnv)
		os.Exit(actAsRuntime(encoded))
	}
	os.Exit(m.Run())
}

func actAsRuntime(encoded string) int {
	var c runtimeCall
	if err := json.Unmarshal([]byte(encoded), &c); err != nil {
		panic(err)
	}
	if len(c.Without) > 0 {
		forget(c.Without)
	}
	status, err := c.do(context.Background())
	if err == nil {
		return status
	}
	wire, _ := json.Marshal(errdefs.ToWire(err))
	fmt.Fprintf(os.Stderr, "%s\n", wire)
	return 250
}

// forget makes system calls fail for this process and its children.
func forget(names []string) {
	enosys := uint(unix.ENOSYS)
	filter, err := seccomp.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
		Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActErrno, ErrnoRet: &enosys}},
	})
	if err != nil {
		panic(err)
	}
	program := unix.SockFprog{Len: uint16(len(filter.Program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter.Program[0]))}
	const setModeFilter = 1
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		panic(errno)
	}
}

func (c *runtimeCall) do(ctx context.Context) (int, error) {
	switch c.Verb {
	case "run":
		return Run(ctx, RunOptions{CreateOptions: c.Create, Detach: c.Detach})
	case "create":
		_, err := Create(ctx, c.Create)
		return 0, err
	}
	container, err := Open(c.Create.Root, c.Create.ID)
	if err != nil {
		return 0, err
	}
	switch c.Verb {
	case "start":
		return 0, Start(ctx, container)
	case "exec":
		return Exec(ctx, container, ExecOptions{
			Terminal: c.Process.Terminal, ConsoleSocket: c.Create.ConsoleSocket, PreserveFDs: c.Create.PreserveFDs, Detach: c.Detach,
			Process: func(*specs.Spec) (*specs.Process, error) { return c.Process, nil },
		})
	}
	return 0, errors.New("unknown verb")
}

// result is what a runtime call did.
type result struct {
	stdout string
	status int
	err    *errdefs.Error // what the runtime said, if it failed
	stderr string
}

// sandbox is a bundle and a root of its own.
type sandbox struct {
	t       *testing.T
	dir     string
	spec    *specs.Spec
	create  CreateOptions
	stdin   string
	extra   []*os.File
	binary  string   // the runtime
	without []string // see runtimeCall
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes namespaces and mounts")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("needs /bin/busybox, static")
	}
	dir := t.TempDir()
	id := fmt.Sprintf("lct-%d-%s", os.Getpid(), strings.ToLower(filepath.Base(dir)+strings.NewReplacer("/", "-", "_", "-", ",", "").Replace(t.Name())))
	s := &sandbox{t: t, dir: dir, binary: "/proc/self/exe", create: CreateOptions{Root: filepath.Join(dir, "root"), ID: id, Bundle: dir}}
	s.spec = baseSpec()
	s.spec.Linux.CgroupsPath = "/libcontainer-test/" + id
	s.layOutRoot()
	t.Cleanup(s.clean)
	return s
}

// layOutRoot makes a root file system out of busybox.
func (s *sandbox) layOutRoot() {
	for _, dir := range []string{"bin", "etc", "root", "tmp"} {
		s.must(os.MkdirAll(s.path(dir), 0o755))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	s.must(err)
	s.must(os.WriteFile(s.path("bin/busybox"), busybox, 0o755))
	for _, applet := range []string{"sh", "true", "cat", "id", "ls", "mount", "sleep", "env", "stat", "stty", "tty", "readlink", "grep", "hostname", "touch", "ip", "mkdir", "wc", "ps", "kill"} {
		s.must(os.Symlink("busybox", s.path("bin/"+applet)))
	}
	s.must(os.WriteFile(s.path("etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh"), 0o644))
}

// clean kills what a failed test left and removes the cgroups.
func (s *sandbox) clean() {
	if c, err := Open(s.create.Root, s.create.ID); err == nil {
		c.killInit()
		c.cgroup().Kill(context.Background())
		if err := c.cgroup().Remove(context.Background()); err != nil {
			s.t.Errorf("removing the cgroup: %v", err)
		}
	}
}

func (s *sandbox) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sandbox) path(inside string) string { return filepath.Join(s.dir, "rootfs", inside) }

// runtime calls the runtime.
func (s *sandbox) runtime(call runtimeCall) result {
	s.t.Helper()
	config, err := json.Marshal(s.spec)
	s.must(err)
	s.must(os.WriteFile(filepath.Join(s.dir, ConfigFile), config, 0o644))
	call.Create, call.Without = s.create, s.without
	encoded, err := json.Marshal(call)
	s.must(err)
	cmd := exec.Command(s.binary)
	cmd.Env = append(os.Environ(), runtimeEnv+"="+string(encoded), "GORACE=atexit_sleep_ms=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = strings.NewReader(s.stdin), &stdout, &stderr, s.extra
	if call.Verb != "run" && call.Verb != "exec" || call.Detach {
		// The container outlives the call, and would keep our pipes open.
		cmd.Stdin, cmd.Stdout = nil, nil
		file, err := os.Create(filepath.Join(s.dir, "stderr"))
		s.must(err)
		defer file.Close()
		cmd.Stderr = file
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if file, ok := cmd.Stderr.(*os.File); ok {
		data, _ := os.ReadFile(file.Name())
		stderr.Write(data)
	}
	return newResult(stdout.String(), stderr.String(), cmd.ProcessState.ExitCode())
}

// background starts a call whose process says one line when it is there. The
// returned function waits for its end.
func (s *sandbox) background(call runtimeCall) func() {
	s.t.Helper()
	call.Create = s.create
	encoded, err := json.Marshal(call)
	s.must(err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), runtimeEnv+"="+string(encoded), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := cmd.Wait(); err != nil {
			s.t.Error(err)
		}
	}
}

func newResult(stdout, stderr string, status int) result {
	r := result{stdout: stdout, stderr: stderr, status: status}
	var wire errdefs.Wire
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if status == 250 && json.Unmarshal([]byte(lines[len(lines)-1]), &wire) == nil {
		r.err = wire.Err()
	}
	return r
}

// run runs a command in a fresh container.
func (s *sandbox) run(args ...string) result {
	s.t.Helper()
	s.spec.Process.Args = args
	return s.runtime(runtimeCall{Verb: "run"})
}

// sh runs a script and returns its output; any failure ends the test.
func (s *sandbox) sh(script string) string {
	s.t.Helper()
	r := s.run("sh", "-c", script)
	if r.status != 0 {
		s.t.Fatalf("%s: status %d\n%s%s", script, r.status, r.stdout, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}

// want compares a script's output.
func (s *sandbox) want(script, want string) {
	s.t.Helper()
	if got := s.sh(script); got != want {
		s.t.Errorf("%s\n got: %q\nwant: %q", script, got, want)
	}
}

// wantNothingLeft checks that a call that failed, or a run that ended, left
// neither directory nor cgroup.
func (s *sandbox) wantNothingLeft() {
	s.t.Helper()
	if _, err := os.Stat(filepath.Join(s.create.Root, s.create.ID)); !os.IsNotExist(err) {
		s.t.Errorf("the container's directory is still there: %v", err)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + s.spec.Linux.CgroupsPath)
	left2, _ := filepath.Glob("/sys/fs/cgroup" + s.spec.Linux.CgroupsPath)
	if left = append(left, left2...); len(left) > 0 {
		s.t.Errorf("cgroups are still there: %v", left)
	}
}

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

func TestRootCanBeMovedAndShared(t *testing.T) {
	s := newSandbox(t)
	s.create.NoPivot = true
	s.want("cat /proc/1/comm; ls -d /bin /work 2>/dev/null || :", "sh\n/bin")
	s.create.NoPivot = false
	s.spec.Linux.RootfsPropagation = "rshared"
	s.want(`grep -c " / rw,relatime shared:" /proc/self/mountinfo`, "1")
	s.spec.Linux.RootfsPropagation = "private"
	s.want("mount -t tmpfs x /tmp 2>/dev/null; grep -c shared: /proc/self/mountinfo || true", "0")
}
