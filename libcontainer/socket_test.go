package libcontainer

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// listen takes one message with one descriptor from a socket in the sandbox.
func (s *sandbox) listen(name string) (path string, receive func() (data []byte, fd int)) {
	s.t.Helper()
	path = filepath.Join(s.dir, name)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	s.must(err)
	s.t.Cleanup(func() { listener.Close() })
	return path, func() ([]byte, int) {
		conn, err := listener.AcceptUnix()
		if err != nil {
			s.t.Error(err)
			return nil, -1
		}
		defer conn.Close()
		data, control := make([]byte, 1<<16), make([]byte, 64)
		n, oobn, _, _, err := conn.ReadMsgUnix(data, control)
		if err != nil {
			s.t.Error(err)
			return nil, -1
		}
		messages, err := syscall.ParseSocketControlMessage(control[:oobn])
		if err != nil || len(messages) != 1 {
			s.t.Error(messages, err)
			return nil, -1
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			s.t.Error(fds, err)
			return nil, -1
		}
		s.t.Cleanup(func() { unix.Close(fds[0]) })
		return data[:n], fds[0]
	}
}

func TestPidfdGoesToItsSocket(t *testing.T) {
	s := newSandbox(t)
	path, receive := s.listen("pidfd")
	s.create.PidfdSocket = path
	fds := make(chan int, 1)
	go func() {
		_, fd := receive()
		fds <- fd
	}()
	c := s.running()
	fd := <-fds
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	s.must(err)
	if !strings.Contains(string(data), fmt.Sprintf("Pid:\t%d\n", c.State.Pid)) {
		t.Errorf("want pid %d:\n%s", c.State.Pid, data)
	}
	s.must(c.killInit())
}

// seccomp_unotify(2), for mkdir: 5.0.
type notification struct {
	ID    uint64
	Pid   uint32
	Flags uint32
	Nr    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

type notificationAnswer struct {
	ID    uint64
	Value int64
	Error int32
	Flags uint32
}

// answer serves one notification with an errno.
func answer(listener int, errno int32) error {
	const receive, send = 0xc0502100, 0xc0182101
	var n notification
	for {
		_, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), receive, uintptr(unsafe.Pointer(&n)))
		if err == 0 {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	reply := notificationAnswer{ID: n.ID, Error: -errno}
	if _, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), send, uintptr(unsafe.Pointer(&reply))); err != 0 {
		return err
	}
	return nil
}

func TestSeccompAgentGetsTheListener(t *testing.T) {
	for _, noNewPrivileges := range []bool{true, false} {
		t.Run(fmt.Sprintf("no new privileges %v", noNewPrivileges), func(t *testing.T) {
			s := newSandbox(t)
			path, receive := s.listen("agent")
			s.spec.Process.NoNewPrivileges = noNewPrivileges
			s.spec.Annotations = map[string]string{"a": "b"}
			s.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "meta",
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "sendmsg", "close_range"}, Action: specs.ActNotify}}}
			states := make(chan specs.ContainerProcessState, 2)
			served := make(chan error, 2)
			agent := func(serve bool) {
				data, fd := receive()
				var state specs.ContainerProcessState
				if err := json.Unmarshal(data, &state); err != nil {
					served <- err
					return
				}
				states <- state
				if serve { // before 6.11 a wait for a process that is gone does not end
					served <- answer(fd, int32(unix.ENOLCK))
				}
			}
			go agent(true)
			r := s.run("sh", "-c", "mkdir /x")
			s.must(<-served)
			if r.status != 1 || !strings.Contains(r.stderr, "No locks available") {
				t.Errorf("got %+v", r)
			}
			state := <-states
			if state.Metadata != "meta" || len(state.Fds) != 1 || state.Fds[0] != "seccompFd" || state.Pid == 0 || state.Pid != state.State.Pid ||
				state.State.Status != specs.StateCreating || state.State.ID != s.create.ID || state.State.Annotations["a"] != "b" {
				t.Errorf("got %+v", state)
			}
			s.wantNothingLeft()
			// create, and exec: the container's own filter is only for its process.
			go agent(false)
			s.spec.Process.Args = []string{"sleep", "100"}
			if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
				t.Fatal(r.stderr)
			}
			init := <-states
			if r := s.runtime(runtimeCall{Verb: "start"}); r.status != 0 {
				t.Fatal(r.stderr)
			}
			go agent(true)
			if r := s.exec("mkdir /x"); !strings.Contains(r.stderr, "No locks available") {
				t.Errorf("exec: %+v", r)
			}
			if state := <-states; state.State.Status != specs.StateRunning || state.State.Pid != init.Pid || state.Pid == init.Pid {
				t.Errorf("exec: got %+v, init %+v", state, init)
			}
			s.must(<-served)
			c, err := Open(s.create.Root, s.create.ID)
			s.must(err)
			s.must(c.killInit())
		})
	}
}

func TestAgentThatIsNotThere(t *testing.T) {
	s := newSandbox(t)
	s.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nowhere",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
	if r := s.run("true"); r.err == nil || !strings.Contains(r.err.Error(), `connecting to the seccomp agent "/nowhere"`) {
		t.Errorf("got %+v", r)
	}
	s.wantNothingLeft()
}
