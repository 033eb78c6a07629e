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
		return 0, Start(ctx, container, StartOptions{NotifySocket: c.Create.NotifySocket})
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
	tty     *os.File // instead, if not nil
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

// command runs a program of the host from the test's thread.
func (s *sandbox) command(name string, args ...string) string {
	s.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		s.t.Skipf("needs %s", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %q: %v %s", name, args, err, out)
	}
	return string(out)
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
	if s.tty != nil {
		cmd.Stdin = s.tty
	}
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
