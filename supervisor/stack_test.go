package supervisor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// These tests run the real supervisor: with a shim that only pretends, and, as
// root, with the real shim and a real runtime, which is runc unless
// ENGINED_TEST_RUNTIME names another.

const busybox = "/bin/busybox"

// patience bounds what a test waits for; reaching it is a failure. A machine that
// has ten times as much to do as it can is slow, not wrong.
const patience = 3 * time.Minute

// given is a directory with binaries to test, for machines without a compiler.
var given = os.Getenv("SUPERVISOR_TEST_BIN")

// built is where the binaries under test are, built once for all tests.
var built = sync.OnceValues(func() (string, error) {
	if given != "" {
		return given, nil
	}
	return os.MkdirTemp("", "engined-supervisor-test-bin-")
})

func build(command string) error {
	dir, err := built()
	if err != nil || given != "" {
		return err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "../cmd/"+command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w\n%s", err, said)
	}
	return nil
}

var (
	buildSupervisor = sync.OnceValue(func() error { return build("supervisor") })
	buildShim       = sync.OnceValue(func() error { return build("shim") })
)

func TestMain(m *testing.M) {
	if os.Getenv(fakeShimVariable) != "" {
		runFakeShim()
	}
	if err := runtime.BecomeSubreaper(); err != nil {
		panic(err)
	}
	code := m.Run()
	if dir, _ := built(); dir != "" && given == "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func testRuntime(t testing.TB) string {
	name := os.Getenv("ENGINED_TEST_RUNTIME")
	if name == "" {
		name = "runc"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no OCI runtime: %v", err)
	}
	return path
}

// withEachShim runs a test with the pretended shim and with the real one.
func withEachShim(t *testing.T, test func(*testing.T, *stack)) {
	t.Run("fake", func(t *testing.T) { test(t, newFakeStack(t)) })
	t.Run("real", func(t *testing.T) { test(t, newStack(t)) })
}

// stack is one supervisor with directories of its own.
type stack struct {
	t          testing.TB
	dir        string
	bin        string
	fake       bool // its shims only pretend
	runtime    string
	flags      []string
	env        []string // of the supervisor
	ownSession bool
	client     *api.Client
	process    *exec.Cmd
	log        *os.File
}

// newStack starts a supervisor with the real shim and a real runtime.
func newStack(t testing.TB, flags ...string) *stack {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("no busybox: %v", err)
	}
	if err := buildShim(); err != nil {
		t.Fatal(err)
	}
	return startStack(t, &stack{t: t, runtime: testRuntime(t), flags: flags})
}

// newFakeStack starts a supervisor with the pretended shim.
func newFakeStack(t testing.TB) *stack {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	always, err := exec.LookPath("true") // whatever the runtime is asked to delete is not there
	if err != nil {
		t.Fatal(err)
	}
	return startStack(t, &stack{t: t, fake: true, runtime: always, flags: []string{"--shim", self}})
}

// startStack starts a supervisor and removes everything at the test's end.
func startStack(t testing.TB, s *stack) *stack {
	t.Helper()
	if err := buildSupervisor(); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.bin, err = built(); err != nil {
		t.Fatal(err)
	}
	if s.dir, err = os.MkdirTemp("", "engined-supervisor-test-"); err != nil {
		t.Fatal(err)
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "supervisor.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	s.start()
	return s
}

func (s *stack) address() string  { return "unix://" + filepath.Join(s.dir, "supervisor.sock") }
func (s *stack) stateDir() string { return filepath.Join(s.dir, "state") }

// start starts the supervisor and waits until it says that it is ready.
func (s *stack) start() {
	s.t.Helper()
	notify := filepath.Join(s.dir, "notify")
	os.Remove(notify)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer socket.Close()
	s.launch(notify)
	said := make([]byte, 64)
	socket.SetReadDeadline(time.Now().Add(patience))
	if n, err := socket.Read(said); err != nil || string(said[:n]) != "READY=1" {
		s.t.Fatalf("supervisor said %q, %v\n%s", said[:n], err, s.logged())
	}
	if s.client == nil {
		if s.client, err = api.Dial(s.t.Context(), s.address()); err != nil {
			s.t.Fatal(err)
		}
	}
	// A connection from before a restart is mended by a call that waits. One that is
	// on its way when the old one ends fails: a child that the killed supervisor had
	// just forked holds that until its exec.
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	err = errdefs.Unavailable.Errorf("not asked yet")
	for errdefs.KindOf(err) == errdefs.Unavailable && ctx.Err() == nil {
		_, err = s.client.GetServerVersion(ctx, &api.GetServerVersionRequest{}, grpc.WaitForReady(true))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// launch starts the supervisor's process.
func (s *stack) launch(notify string) {
	s.t.Helper()
	args := append([]string{"--listen", s.address(), "--state-dir", s.stateDir(), "--runtime", s.runtime, "--debug"}, s.flags...)
	s.process = exec.Command(filepath.Join(s.bin, "supervisor"), args...)
	s.process.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+notify), s.env...)
	if s.fake {
		// Under the race detector each would sleep for a second before it exits.
		s.process.Env = append(s.process.Env, fakeShimVariable+"=1", "GORACE=atexit_sleep_ms=0")
	}
	s.process.Stderr = s.log
	s.process.SysProcAttr = &unix.SysProcAttr{Setsid: s.ownSession}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// restart ends the supervisor and starts it with other flags.
func (s *stack) restart(flags ...string) {
	s.t.Helper()
	s.end(unix.SIGTERM)
	s.flags = flags
	s.start()
}

// end ends the supervisor by a signal.
func (s *stack) end(signal unix.Signal) {
	s.t.Helper()
	if s.process == nil {
		return
	}
	s.process.Process.Signal(signal)
	err := s.process.Wait()
	if signal == unix.SIGTERM && err != nil {
		s.t.Errorf("after TERM: %v\n%s", err, s.logged())
	}
	s.process = nil
}

func (s *stack) logged() string {
	said, _ := os.ReadFile(s.log.Name())
	return string(said)
}

// remove deletes every container by way of the API, ends the supervisor, and
// fails the test if anything is left.
func (s *stack) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.process != nil && s.client != nil {
		state, err := s.client.State(ctx, &api.StateRequest{})
		if err != nil {
			s.t.Errorf("listing what is left: %v", err)
		}
		for _, c := range state.GetContainers() {
			if _, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: c.Id, Force: true}); err != nil {
				s.t.Errorf("deleting what is left: %v", err)
			}
		}
		s.end(unix.SIGTERM)
		s.client.Close()
	}
	if left := append(s.leftovers(), s.cgroups()...); len(left) > 0 && !s.dyingSpares(left) {
		s.t.Errorf("left over: %s", strings.Join(left, "\n"))
	}
	if s.t.Failed() {
		s.t.Logf("supervisor's log:\n%s", s.logged())
	}
	s.log.Close()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Error(err)
	}
}

// dyingSpares waits for the end of what is left of a supervisor that was killed: a
// shim that waited for a container. It reports whether that was all.
func (s *stack) dyingSpares(left []string) bool {
	for late := time.Now().Add(patience); len(left) > 0 && time.Now().Before(late); left = append(s.leftovers(), s.cgroups()...) {
		if slices.ContainsFunc(left, func(item string) bool { return !strings.Contains(item, " "+shim.SpareCommand+" ") }) {
			return false
		}
		time.Sleep(5 * time.Millisecond) // it is nobody's child that we could wait for
	}
	return len(left) == 0
}

// cgroups lists what is there of the cgroups of all bundles.
func (s *stack) cgroups() (left []string) {
	for _, below := range []string{"", "*/"} {
		found, _ := filepath.Glob("/sys/fs/cgroup/" + below + filepath.Base(s.dir) + "-*")
		left = append(left, found...)
	}
	return left
}

// leftovers lists container directories, the runtime's own, and processes that
// have one of them in their command line. A shim that waits for a container belongs
// to the supervisor, if that lives.
func (s *stack) leftovers() (left []string) {
	for _, pattern := range []string{"state/[a-zA-Z0-9]*", "state/.trash*", "state-runtime/*/[a-zA-Z0-9]*"} {
		found, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		left = append(left, found...)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range processes {
		line, err := os.ReadFile(path)
		spare := s.process != nil && bytes.Contains(line, []byte("\x00"+shim.SpareCommand+"\x00"))
		if err == nil && bytes.Contains(line, []byte(s.dir)) && !spare {
			left = append(left, path+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return left
}

// bundle makes a bundle that runs busybox sh -c script. Its cgroup is its own, for
// one container at a time: ids that runtimes name a cgroup by are the same in
// every stack.
func (s *stack) bundle(script string, change ...func(*specs.Spec)) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "bundle-")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, sub := range []string{"bin", "proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", sub), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "rootfs", "bin", "busybox")
	if err := os.Link(busybox, binary); err != nil && !s.fake {
		content, readErr := os.ReadFile(busybox)
		if err := errors.Join(readErr, os.WriteFile(binary, content, 0o755)); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "sleep", "cat", "id", "env", "true", "echo", "kill", "usleep"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "rootfs", "bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			s.t.Fatal(err)
		}
	}
	config := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin", "FROM=bundle"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}},
		},
		Root: &specs.Root{Path: "rootfs"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		},
		Linux: &specs.Linux{
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
			Resources:   &specs.LinuxResources{},
			CgroupsPath: "/" + filepath.Base(s.dir) + "-" + filepath.Base(dir),
		},
	}
	for _, edit := range change {
		edit(config)
	}
	encoded, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), encoded, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// run creates and starts a container.
func (s *stack) run(id, script string) *api.Container {
	s.t.Helper()
	answer, err := s.client.CreateContainer(s.t.Context(), &api.CreateContainerRequest{Id: id, BundlePath: s.bundle(script)})
	if err != nil {
		s.t.Fatalf("creating %s: %v\n%s", id, err, s.logged())
	}
	return answer.Container
}

// wait returns how a process ended.
func (s *stack) wait(id, pid string) *api.Exit {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	answer, err := s.client.Wait(ctx, &api.WaitRequest{Id: id, Pid: pid})
	if err != nil {
		s.t.Fatalf("waiting for %s %s: %v\n%s", id, pid, err, s.logged())
	}
	return answer.Exit
}

// settles waits until check no longer finds anything.
func (s *stack) settles(t *testing.T, check func() error) {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(late) {
			t.Error(err)
			return
		}
		time.Sleep(20 * time.Millisecond) // what is awaited tells nobody
	}
}

// state returns one container as State has it.
func (s *stack) state(id string) *api.Container {
	s.t.Helper()
	answer, err := s.client.State(s.t.Context(), &api.StateRequest{Id: id})
	if err != nil {
		s.t.Fatalf("state of %s: %v", id, err)
	}
	return answer.Containers[0]
}

func (s *stack) delete(id string, force bool) {
	s.t.Helper()
	if _, err := s.client.DeleteContainer(s.t.Context(), &api.DeleteContainerRequest{Id: id, Force: force}); err != nil {
		s.t.Fatalf("deleting %s: %v\n%s", id, err, s.logged())
	}
}

// stored returns all events that the journal holds, as "type id pid status".
func (s *stack) stored() (events []string) {
	s.t.Helper()
	stream, err := s.client.Events(s.t.Context(), &api.EventsRequest{StoredOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return events
		}
		events = append(events, line(event))
	}
}

func line(e *api.Event) string {
	fields := []string{e.Type, e.Id}
	if e.Pid != "" {
		fields = append(fields, e.Pid)
	}
	if e.Status != 0 {
		fields = append(fields, fmt.Sprint(e.Status))
	}
	return strings.Join(fields, " ")
}

// runSupervisor runs a supervisor that is expected to refuse its flags.
func runSupervisor(s *stack, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "supervisor"), append(flags, "--runtime", s.runtime)...)
	said, err := cmd.CombinedOutput()
	return string(said), err
}
