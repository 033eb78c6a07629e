package shim_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// The tests run the real shim with a real runtime: runc, or what
// SHIM_TEST_RUNTIME names, with SHIM_TEST_RUNTIME_ARGS before its command.
var shimPath, runtimePath string

// prefix begins the names of what the tests make: `make leakcheck` knows it.
const prefix = "eit-shim"

func TestMain(m *testing.M) {
	if os.Getenv(janitorVariable) != "" {
		sweep(os.Stdin)
		return
	}
	dir, err := os.MkdirTemp("/tmp", prefix)
	if err != nil {
		panic(err)
	}
	shimPath = filepath.Join(dir, "shim")
	flags := strings.Fields(os.Getenv("SHIM_TEST_BUILD_FLAGS")) // -race
	build := exec.Command("go", append(append([]string{"build", "-o", shimPath}, flags...), "github.com/engined/engined/cmd/shim")...)
	if len(flags) == 0 {
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT="+leanCollector())
	}
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the shim: %v\n%s", err, output)
		os.Exit(1)
	}
	name := os.Getenv("SHIM_TEST_RUNTIME")
	if name == "" {
		name = "runc"
	}
	runtimePath, _ = exec.LookPath(name)
	startJanitor()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// leanCollector is the GOEXPERIMENT with which the Makefile builds the shim, or
// nothing where the toolchain no longer has it.
func leanCollector() string {
	ask := exec.Command("go", "env", "GOEXPERIMENT")
	ask.Env = append(os.Environ(), "GOEXPERIMENT=nogreenteagc")
	answer, err := ask.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(answer))
}

// box is one container and its shim.
type box struct {
	t       testing.TB
	id      string
	dir     string // STATE/ID
	bundle  string
	command *exec.Cmd
	client  *proto.Client
	ctx     context.Context
	ended   bool
}

var boxes atomic.Int64

// newBox starts a shim for a bundle whose process runs args; change edits its
// config.json.
func newBox(t testing.TB, args []string, change func(spec map[string]any)) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if runtimePath == "" {
		t.Skip("needs runc, or SHIM_TEST_RUNTIME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	b := &box{t: t, id: fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), boxes.Add(1)), ctx: ctx}
	state, err := os.MkdirTemp("/tmp", prefix)
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(state)) })
	b.dir, b.bundle = filepath.Join(state, b.id), filepath.Join(state, "bundle")
	b.makeBundle(args, change)
	must(t, os.MkdirAll(filepath.Join(b.dir, proto.Init), 0o700))
	must(t, proto.WriteFile(filepath.Join(b.dir, proto.ContainerFile), proto.Container{
		ID: b.id, Bundle: b.bundle, Runtime: runtimePath,
		RuntimeArgs: append([]string{"--root", filepath.Join(state, "root")}, strings.Fields(os.Getenv("SHIM_TEST_RUNTIME_ARGS"))...),
	}))
	must(t, tellJanitor(b.dir))
	b.launch()
	t.Cleanup(func() {
		b.end()
		cancel()
	})
	return b
}

func (b *box) makeBundle(args []string, change func(map[string]any)) {
	b.t.Helper()
	bin := filepath.Join(b.bundle, "rootfs", "bin")
	must(b.t, os.MkdirAll(bin, 0o755))
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		b.t.Skip("needs busybox: ", err)
	}
	must(b.t, os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755))
	for _, name := range []string{"sh", "cat", "echo", "sleep", "seq", "stty", "true", "kill", "yes", "head", "dd", "tty"} {
		must(b.t, os.Symlink("busybox", filepath.Join(bin, name)))
	}
	generate := exec.Command("runc", "spec")
	generate.Dir = b.bundle
	if output, err := generate.CombinedOutput(); err != nil {
		b.t.Fatalf("runc spec: %v %s", err, output)
	}
	var spec map[string]any
	must(b.t, proto.ReadFile(filepath.Join(b.bundle, "config.json"), &spec))
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, args
	// runc's own example asks for ambient capabilities that are not inheritable,
	// which the kernel refuses and runc overlooks.
	delete(process["capabilities"].(map[string]any), "ambient")
	spec["root"].(map[string]any)["readonly"] = false
	spec["linux"].(map[string]any)["cgroupsPath"] = "/" + b.id
	if change != nil {
		change(spec)
	}
	must(b.t, proto.WriteFile(filepath.Join(b.bundle, "config.json"), spec))
}

func (b *box) launch() {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(b.t, err)
	listener := os.NewFile(uintptr(fd), "listener")
	defer listener.Close()
	at, err := os.Open(b.dir)
	must(b.t, err)
	defer at.Close()
	must(b.t, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", at.Fd(), proto.SocketFile)}))
	must(b.t, unix.Listen(fd, 16))
	log, err := os.Create(filepath.Join(b.dir, proto.LogFile))
	must(b.t, err)
	defer log.Close()
	b.command = exec.Command(shimPath, b.id, b.bundle, runtimePath)
	b.command.Dir = b.dir
	b.command.Env = append(os.Environ(), "GOMAXPROCS=1", "NOTIFY_SOCKET=/of/the/supervisor")
	b.command.Stderr = log
	b.command.ExtraFiles = []*os.File{listener}
	b.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(b.t, b.command.Start())
	b.client, err = proto.Connect(b.ctx, filepath.Join(b.dir, proto.SocketFile))
	must(b.t, err)
	hello, err := b.client.Hello(b.ctx)
	must(b.t, err)
	if hello.ID != b.id || hello.Self.Pid != b.command.Process.Pid {
		b.t.Fatalf("hello from %+v", hello)
	}
}

// end deletes the container and expects the shim to end and nothing to be left.
func (b *box) end() {
	if b.ended {
		return
	}
	b.ended = true
	if err := b.client.Delete(b.ctx); err != nil {
		b.t.Errorf("delete: %v", err)
		b.command.Process.Kill()
	}
	if err := b.command.Wait(); err != nil {
		b.t.Errorf("the shim ended with %v", err)
	}
	b.client.Close()
	if _, err := os.Stat("/sys/fs/cgroup/memory/" + b.id); err == nil {
		b.t.Errorf("its cgroup is left")
	}
	if said, err := os.ReadFile(filepath.Join(b.dir, proto.LogFile)); err == nil && len(said) > 0 {
		b.t.Logf("shim.log:\n%s", said)
	}
}

func (b *box) request(process string, req proto.Request) {
	b.t.Helper()
	must(b.t, os.MkdirAll(filepath.Join(b.dir, process), 0o700))
	must(b.t, proto.WriteFile(filepath.Join(b.dir, process, proto.RequestFile), req))
}

func (b *box) start(req proto.Request) proto.Started {
	b.t.Helper()
	b.request(proto.Init, req)
	started, err := b.client.Start(b.ctx, proto.Init)
	if err != nil {
		said, _ := os.ReadFile(filepath.Join(b.dir, proto.LogFile))
		b.t.Fatalf("start: %v\n%s", err, said)
	}
	return started
}

func (b *box) exec(name string, req proto.Request, args ...string) (proto.Started, error) {
	b.t.Helper()
	b.request(name, req)
	must(b.t, proto.WriteFile(filepath.Join(b.dir, name, proto.ProcessFile), map[string]any{
		"terminal": req.Terminal, "args": args, "cwd": "/", "user": map[string]int{"uid": 0, "gid": 0},
		"env": []string{"PATH=/bin"},
	}))
	return b.client.Start(b.ctx, name)
}

// exit waits until a process has exited.
func (b *box) exit(process string) proto.Exit {
	b.t.Helper()
	for {
		note, err := b.client.Next(b.ctx)
		if err != nil {
			b.t.Fatalf("waiting for the exit of %s: %v", process, err)
		}
		if note.Exited != nil && note.Exited.Process == process {
			break
		}
	}
	var exit proto.Exit
	must(b.t, proto.ReadFile(filepath.Join(b.dir, process, proto.ExitFile), &exit))
	return exit
}

func (b *box) logPath() string { return filepath.Join(b.dir, "..", "container.log") }

func (b *box) jsonLog() *proto.Log {
	return &proto.Log{Driver: logfile.JSONFile, Path: b.logPath()}
}

// logged returns the log as stream:line strings.
func (b *box) logged() string {
	b.t.Helper()
	return b.loggedAt(b.logPath())
}

func (b *box) loggedAt(path string) string {
	b.t.Helper()
	r, err := logfile.NewReader(logfile.JSONFile, path, logfile.ReadOptions{Tail: -1})
	must(b.t, err)
	defer r.Close()
	var text strings.Builder
	for {
		e, err := r.Next(b.ctx)
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		must(b.t, err)
		fmt.Fprintf(&text, "%s:%s", e.Stream, e.Line)
	}
}

// said returns shim.log.
func (b *box) said() string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, proto.LogFile))
	must(b.t, err)
	return string(text)
}

// attach gives the shim one end of a connection and returns the other.
func (b *box) attach(req proto.AttachRequest) *net.UnixConn {
	b.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(b.t, err)
	defer unix.Close(fds[1])
	file := os.NewFile(uintptr(fds[0]), "client")
	defer file.Close()
	conn, err := net.FileConn(file)
	must(b.t, err)
	must(b.t, b.client.Attach(b.ctx, req, uintptr(fds[1])))
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(3 * time.Minute))
	return conn.(*net.UnixConn)
}

// unframe removes the headers of Docker's multiplexed stream.
type unframe struct {
	from io.Reader
	left int
}

func (u *unframe) Read(p []byte) (int, error) {
	for u.left == 0 {
		var header [8]byte
		if _, err := io.ReadFull(u.from, header[:]); err != nil {
			return 0, err
		}
		u.left = int(header[4])<<24 | int(header[5])<<16 | int(header[6])<<8 | int(header[7])
	}
	n, err := u.from.Read(p[:min(len(p), u.left)])
	u.left -= n
	return n, err
}

// child waits for the shim's first child and returns its pid.
func (b *box) child() (pid int) {
	b.t.Helper()
	for b.ctx.Err() == nil {
		if pids := b.children(); len(pids) > 0 {
			return pids[0]
		}
	}
	b.t.Fatal("the shim has no child")
	return 0
}

// children returns the shim's children, dead ones too.
func (b *box) children() (pids []int) {
	b.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.command.Process.Pid))
	must(b.t, err)
	for _, task := range tasks {
		data, _ := os.ReadFile(task) // a thread may have ended
		for field := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(field)
			must(b.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func jsonOf(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}
