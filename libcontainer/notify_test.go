package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// told is what the host's socket has been sent, and by whom.
type told struct {
	end chan struct{} // the test is over

	mu     sync.Mutex    // guards what follows
	hold   time.Duration // how long a barrier is kept
	texts  []string
	sender int
}

func (h *told) got() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.texts, "|")
}

func (h *told) keep(barriers time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = barriers
}

// notifyHost listens as systemd does, at a path or an abstract name.
func (s *sandbox) notifyHost(name string) *told {
	s.t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	s.must(err)
	raw, err := socket.SyscallConn()
	s.must(err)
	s.must(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }))
	s.must(err)
	h, done := &told{end: make(chan struct{})}, make(chan struct{})
	go func() {
		defer close(done)
		for h.take(socket) {
		}
	}()
	s.t.Cleanup(func() {
		close(h.end)
		socket.Close()
		<-done
	})
	s.create.NotifySocket = name
	return h
}

func (h *told) take(socket *net.UnixConn) bool {
	data, control := make([]byte, 8192), make([]byte, 256)
	n, oobn, _, _, err := socket.ReadMsgUnix(data, control)
	if err != nil {
		return false
	}
	h.mu.Lock()
	h.texts = append(h.texts, string(data[:n]))
	hold := h.hold
	messages, _ := unix.ParseSocketControlMessage(control[:oobn])
	var fds []int
	for i := range messages {
		if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = rights
		} else if credentials, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			h.sender = int(credentials.Pid)
		}
	}
	h.mu.Unlock()
	if len(fds) > 0 {
		select {
		case <-time.After(hold):
		case <-h.end:
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return true
}

// says makes a script out of datagrams. busybox's logger sends each to /dev/log, in
// one piece, after a line of its own.
func (s *sandbox) says(texts ...string) string {
	s.spec.Mounts[1].Options = append(s.spec.Mounts[1].Options, "mode=777") // /dev, for who is not root
	s.must(os.Symlink("busybox", s.path("bin/logger")))
	s.must(os.Symlink("busybox", s.path("bin/ln")))
	script := "ln -s $NOTIFY_SOCKET /dev/log"
	for _, text := range texts {
		script += "; logger '\n" + text + "'"
	}
	return script
}

// ready is a container that tries what it should not, says that it is ready, and stays.
func (s *sandbox) ready() []string {
	return []string{"sh", "-c", s.says("MAINPID=1", "junk", "FDSTORE=1\nNOTREADY=1", "STATUS=up\nMAINPID=1\nREADY=1\nMAINPID=1") + "; exec sleep 100"}
}

// up checks that a call told the host that the container is ready.
func (s *sandbox) up(h *told, call runtimeCall) *Container {
	s.t.Helper()
	if r := s.runtime(call); r.status != 0 {
		s.t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	if got, want := h.got(), fmt.Sprintf("READY=1\n|MAINPID=%d\n|BARRIER=1", c.State.Pid); got != want {
		s.t.Errorf("the host was told %q, want %q", got, want)
	}
	return c
}

func TestReadyContainersAreTold(t *testing.T) {
	for name, change := range map[string]func(*sandbox){
		"plain":          func(*sandbox) {},
		"abstract":       func(s *sandbox) { s.create.NotifySocket = "@" + s.create.ID },
		"user":           func(s *sandbox) { s.spec.Process.User = specs.User{UID: 1000, GID: 1000} },
		"user namespace": func(s *sandbox) { s.mapped() },
		"user of a user namespace": func(s *sandbox) {
			s.mapped()
			s.spec.Process.User = specs.User{UID: 1000, GID: 1000}
		},
		"long root": func(s *sandbox) { s.create.Root = filepath.Join(s.dir, strings.Repeat("long/", 40)) },
		"tight umask": func(s *sandbox) {
			old := unix.Umask(0o077)
			s.t.Cleanup(func() { unix.Umask(old) })
			s.spec.Process.User = specs.User{UID: 1000, GID: 1000}
		},
		"read-only root": func(s *sandbox) {
			s.must(os.MkdirAll(s.path("run/notify"), 0o755))
			s.spec.Root.Readonly = true
		},
		"without a mount namespace": func(s *sandbox) {
			s.spec.Linux.Namespaces = s.spec.Linux.Namespaces[:len(s.spec.Linux.Namespaces)-1]
		},
		"old kernel": func(s *sandbox) { s.without = []string{"pidfd_open"} },
	} {
		for _, verbs := range [][]string{{"run"}, {"create", "start"}} {
			t.Run(name+" "+verbs[0], func(t *testing.T) {
				s := newSandbox(t)
				s.create.NotifySocket = filepath.Join(s.dir, "host")
				s.spec.Process.Args = s.ready()
				change(s)
				h := s.notifyHost(s.create.NotifySocket)
				if len(verbs) > 1 {
					if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 || h.got() != "" {
						t.Fatal(r.stderr, h.got())
					}
				}
				c := s.up(h, runtimeCall{Verb: verbs[len(verbs)-1], Detach: true})
				s.must(Delete(t.Context(), c.Root, c.ID, true))
				s.wantNothingLeft()
			})
		}
	}
}

func TestContainerHasASocketToNotify(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	s.spec.Process.Env = append(s.spec.Process.Env, "NOTIFY_SOCKET=/bundle's")
	s.spec.Process.Args = s.ready()
	c := s.up(h, runtimeCall{Verb: "run", Detach: true})
	var environment []byte
	var err error
	for end := time.Now().Add(20 * time.Second); len(environment) == 0 && time.Now().Before(end); { // it has none in the midst of an execve
		environment, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.State.Pid))
		s.must(err)
	}
	if !strings.Contains(string(environment), "\x00NOTIFY_SOCKET=/run/notify/notify.sock\x00") || strings.Contains(string(environment), "bundle's") {
		t.Errorf("%q", environment)
	}
	r := s.exec(`echo $NOTIFY_SOCKET; grep -o " /run/notify [^ ]*" /proc/self/mountinfo; stat -c %a /run/notify /run/notify/notify.sock; touch /run/notify/x`)
	want := "/bundle's\n /run/notify ro,nosuid,nodev,noexec,relatime\n755\n777\n"
	if r.stdout != want || !strings.Contains(r.stderr, "Read-only file system") {
		t.Errorf("exec: %+v, want %q", r, want)
	}
	err = Checkpoint(t.Context(), c, CheckpointOptions{})
	if errdefs.KindOf(err) != errdefs.NotImplemented || err.Error() != "a container with a NOTIFY_SOCKET cannot be checkpointed" {
		t.Errorf("checkpoint: %v", err)
	}
	s.must(c.killInit())
}

func TestWithoutNotifySocketNobodyIsTold(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	h := s.notifyHost(filepath.Join(s.dir, "host")) // for start, too late
	if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 || h.got() != "" {
		t.Errorf("%+v, the host was told %q", r, h.got())
	}
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	s.create.NotifySocket = ""
	if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 { // would wait
		t.Error(r.stderr)
	}
	s.must(Delete(t.Context(), s.create.Root, s.create.ID, true))
}

func TestAttachedRunIsTheServicesProcess(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	s.spec.Process.Terminal = true
	r := s.run("sh", "-c", s.says("MAINPID=1\nREADY=1", "READY=1\nSTATUS=again")+"; echo said; exit 3")
	if r.status != 3 || r.stdout != "said\n" {
		t.Errorf("got %+v", r)
	}
	h.mu.Lock()
	pid := h.sender
	h.mu.Unlock()
	// The last words are those of a process that is gone, whose barrier nobody waits for.
	want := fmt.Sprintf("READY=1\n|MAINPID=%d\n", pid)
	if got := h.got(); !strings.HasPrefix(got, want) || strings.Count(got, "READY") != 1 || pid == os.Getpid() || pid == 0 {
		t.Errorf("the host was told %q, want %q", got, want)
	}
	s.wantNothingLeft()
}

// The end of an attached process is not held up by a host that is busy.
func TestBarrierEndsWithTheProcess(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	h.keep(time.Minute)
	begun := time.Now()
	if r := s.run("sh", "-c", s.says("READY=1")+"; sleep 1"); r.status != 0 {
		t.Errorf("got %+v", r)
	}
	if took := time.Since(begun); took > 20*time.Second || !strings.HasSuffix(h.got(), "BARRIER=1") {
		t.Errorf("took %v, the host was told %q", took, h.got())
	}
	s.wantNothingLeft()
}

func TestDetachedRunWaitsForTheBarrier(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	h.keep(time.Second)
	s.spec.Process.Args = s.ready()
	begun := time.Now()
	c := s.up(h, runtimeCall{Verb: "run", Detach: true})
	if took := time.Since(begun); took < time.Second {
		t.Errorf("took %v", took)
	}
	s.must(c.killInit())
}

func TestContainerThatEndsUnready(t *testing.T) {
	for _, without := range [][]string{nil, {"pidfd_open"}} {
		for _, call := range []runtimeCall{{Verb: "run"}, {Verb: "run", Detach: true}, {Verb: "start"}} {
			for _, script := range []string{"exit 0", "sleep 0.3"} {
				s := newSandbox(t)
				s.without = without
				h := s.notifyHost(filepath.Join(s.dir, "host"))
				s.spec.Process.Args = []string{"sh", "-c", script}
				if call.Verb == "start" {
					if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
						t.Fatal(r.stderr)
					}
				}
				if r := s.runtime(call); r.status != 0 || h.got() != "" {
					t.Errorf("%+v, %s, without %v: %+v, the host was told %q", call, script, without, r, h.got())
				}
			}
		}
	}
}

// What the process said just before its end counts.
func TestLastWordIsHeard(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	s.spec.Process.Args = []string{"sh", "-c", s.says("STATUS=1", "STATUS=2", "READY=1")}
	s.up(h, runtimeCall{Verb: "run", Detach: true})
}

func TestHostThatCannotBeTold(t *testing.T) {
	s := newSandbox(t)
	s.create.NotifySocket = filepath.Join(s.dir, "nobody")
	s.spec.Process.Args = []string{"sleep", "100"}
	want := fmt.Sprintf("sending to the notify socket %q: no such file or directory", s.create.NotifySocket)
	for _, verb := range []string{"run", "start"} {
		if verb == "start" {
			if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
				t.Fatal(r.stderr)
			}
		}
		if r := s.runtime(runtimeCall{Verb: verb, Detach: true}); r.err == nil || r.err.Error() != want {
			t.Errorf("%s: got %+v, want %s", verb, r, want)
		}
		c, err := Open(s.create.Root, s.create.ID)
		s.must(err)
		if status, err := c.Status(); status != Running || err != nil {
			t.Errorf("%s: the container is %s, %v", verb, status, err)
		}
		s.must(Delete(t.Context(), c.Root, c.ID, true))
	}
	if r := s.run("true"); r.status != 0 || !strings.Contains(r.stderr, "WARN sending to the notify socket") {
		t.Errorf("attached: %+v", r)
	}
	s.wantNothingLeft()
}

func TestFailedRunLeavesNoSocket(t *testing.T) {
	s := newSandbox(t)
	h := s.notifyHost(filepath.Join(s.dir, "host"))
	s.spec.Process.Args = []string{"/nothing"}
	for _, call := range []runtimeCall{{Verb: "run"}, {Verb: "run", Detach: true}, {Verb: "create"}} {
		if r := s.runtime(call); errdefs.CodeOf(r.err) != errdefs.ExecNotFound || h.got() != "" {
			t.Errorf("%+v: %+v, the host was told %q", call, r, h.got())
		}
		s.wantNothingLeft()
	}
}

func TestContextEndsTheWait(t *testing.T) {
	s := newSandbox(t)
	s.notifyHost(filepath.Join(s.dir, "host"))
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := Start(ctx, c, StartOptions{NotifySocket: s.create.NotifySocket}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if status, err := c.Status(); status != Running || err != nil {
		t.Errorf("the container is %s, %v", status, err)
	}
	s.must(c.killInit())
}

func TestDryRunShowsTheNotifyMount(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		s := newSandbox(t)
		if mapped {
			s.mapped()
		}
		s.create.NotifySocket = "/run/systemd/notify"
		s.runtime(runtimeCall{Verb: "none"}) // writes config.json
		plan, err := DryRun(s.create)
		s.must(err)
		if !strings.Contains(plan, `"/run/notify"`) || !strings.Contains(plan, "NOTIFY_SOCKET=/run/notify/notify.sock") {
			t.Error(plan)
		}
		s.wantNothingLeft()
	}
}

func TestOnlyTheReadyLineIsTaken(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	n := &notifySocket{fd: pair[0]}
	for said, want := range map[string]string{
		"READY=1":                               "READY=1",
		"READY=1\n":                             "READY=1",
		"A=b\nREADY=1\nMAINPID=1":               "READY=1",
		"READY=1\rMAINPID=1":                    "READY=1",
		"MAINPID=1\r\nREADY=1\r\n":              "READY=1",
		"":                                      "",
		"\n\n":                                  "",
		" READY=1":                              "",
		"READY":                                 "",
		"NOTREADY=1":                            "",
		"READY=" + strings.Repeat("1", 4090):    "READY=" + strings.Repeat("1", 4090),
		"READY=1\n" + strings.Repeat("1", 4090): "", // too long for systemd
	} {
		if err := unix.Send(pair[1], []byte(said), 0); err != nil {
			t.Fatal(err)
		}
		if line, err := n.receive(); string(line) != want || err != nil {
			t.Errorf("%q: got %q, %v", said, line, err)
		}
	}
	if _, err := n.receive(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v", err)
	}
}

func TestDatagramWaitsForRoom(t *testing.T) {
	name := "@" + t.TempDir()
	host, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	fd, err := connectUnix(unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, name)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for err == nil { // the queue is short
		err = sendDatagram(ctx, fd, "x", nil)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { host.Read(make([]byte, 8)) })
	if err := sendDatagram(t.Context(), fd, "x", nil); err != nil {
		t.Error(err)
	}
}
