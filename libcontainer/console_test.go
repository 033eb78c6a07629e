package libcontainer

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

const askTerminal = `tty; stty size; readlink /proc/self/fd/0; stat -c %t /dev/console; echo end`

func TestAttachedTerminal(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Terminal = true
	s.spec.Process.ConsoleSize = &specs.Box{Height: 24, Width: 80}
	s.want(askTerminal, "/dev/pts/0\n24 80\n/dev/pts/0\n88\nend") // into a pipe, so without returns
	s.wantNothingLeft()
}

func TestConsoleSocketGetsTheMaster(t *testing.T) {
	s := newSandbox(t)
	s.create.ConsoleSocket = filepath.Join(s.dir, "socket")
	listener, err := net.Listen("unix", s.create.ConsoleSocket)
	s.must(err)
	defer listener.Close()
	s.spec.Process.Terminal = true
	s.spec.Process.User.UID = 1000
	s.spec.Process.Args = []string{"sh", "-c", "read line; echo got $line; stat -c %u $(tty)"}
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	connection, err := listener.Accept()
	s.must(err)
	defer connection.Close()
	raw, err := connection.(*net.UnixConn).File()
	s.must(err)
	defer raw.Close()
	master, err := receiveMaster(int(raw.Fd()))
	s.must(err)
	defer master.Close()
	_, err = master.WriteString("hello\n")
	s.must(err)
	output, _ := io.ReadAll(master) // ends with EIO, as terminals do
	if got := strings.ReplaceAll(string(output), "\r", ""); got != "hello\ngot hello\n1000\n" {
		t.Errorf("got %q", got)
	}
}

func TestTerminalNeedsSomebodyToTakeIt(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"true"}
	s.spec.Process.Terminal = true
	if r := s.runtime(runtimeCall{Verb: "create"}); errdefs.KindOf(r.err) != errdefs.InvalidArgument {
		t.Errorf("create without console socket: %+v", r)
	}
	s.wantNothingLeft()
	s.spec.Process.Terminal = false
	s.create.ConsoleSocket = filepath.Join(s.dir, "socket")
	if r := s.runtime(runtimeCall{Verb: "create"}); errdefs.KindOf(r.err) != errdefs.InvalidArgument {
		t.Errorf("console socket without terminal: %+v", r)
	}
	s.wantNothingLeft()
}

func TestExecTerminal(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	process := *s.spec.Process
	process.Terminal = true
	process.Args = []string{"sh", "-c", "tty; [ -e /dev/console ] || echo no console"}
	r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
	if r.stdout != "/dev/pts/0\nno console\n" {
		t.Errorf("got %+v", r)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	s.must(c.killInit())
	if _, err := os.Stat(filepath.Join(c.Dir(), StateFile)); err != nil {
		t.Error(err)
	}
}

func TestExecTerminalDoesNotWaitForWhatIsLeftBehind(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"sleep", "100"}
	if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	process := *s.spec.Process
	process.Terminal = true
	process.Args = []string{"sh", "-c", "trap '' HUP; sleep 90 & echo left"}
	if r := s.runtime(runtimeCall{Verb: "exec", Process: &process}); r.stdout != "left\n" {
		t.Errorf("got %+v", r)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	s.must(c.killInit())
}

// A process that is killed before it has sent its terminal ends the wait for that. On
// v2, where it is born in the cgroup, it has not even its plan.
func TestNobodyWaitsForTheTerminalOfTheDead(t *testing.T) {
	s := newSandbox(t)
	limit := int64(4096)
	s.spec.Process.Terminal = true
	s.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	done := make(chan result, 1)
	go func() { done <- s.run("true") }()
	select {
	case r := <-done:
		if r.err == nil || !strings.Contains(r.stderr, "container init was OOM-killed") {
			t.Errorf("got %+v", r)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting")
	}
	s.wantNothingLeft()
}

// A process without a terminal has the caller's streams, but not the caller's terminal
// as its own.
func TestTerminalOfTheCallerStaysTheCallers(t *testing.T) {
	s := newSandbox(t)
	name := s.terminal()
	s.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	s.want("readlink /proc/self/fd/0; stat -L -c %u /proc/self/fd/1", name+"\n1000")
	var found unix.Stat_t
	s.must(unix.Stat(name, &found))
	if found.Uid != 0 {
		t.Errorf("%s belongs to %d now", name, found.Uid)
	}
}

// terminal gives the caller a terminal as standard input and returns its name.
func (s *sandbox) terminal() string {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	s.must(err)
	s.t.Cleanup(func() { master.Close() })
	s.must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	s.must(err)
	s.must(unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 44}))
	name := fmt.Sprint("/dev/pts/", number)
	s.tty, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	s.must(err)
	s.t.Cleanup(func() { s.tty.Close() })
	return name
}

// The container's terminal has the size of the caller's.
func TestTerminalHasTheSizeOfTheCallers(t *testing.T) {
	s := newSandbox(t)
	s.terminal()
	s.spec.Process.Terminal = true
	s.want("i=0; until [ \"$(stty size)\" = '33 44' ] || [ $i = 1000 ]; do i=$((i+1)); sleep 0.01; done 2>/dev/null; stty size", "33 44")
}

// That of a further process belongs to its user, as that of the first does.
func TestTerminalIsTheUsers(t *testing.T) {
	s := newSandbox(t)
	s.running()
	process := *s.spec.Process
	process.User, process.Terminal = specs.User{UID: 1000, GID: 1000}, true
	process.Args = []string{"sh", "-c", "stat -c %u $(tty); (: > /proc/self/fd/1) && echo writable"}
	r := s.runtime(runtimeCall{Verb: "exec", Process: &process})
	if got := strings.Fields(r.stdout); r.status != 0 || strings.Join(got, " ") != "1000 writable" {
		t.Errorf("%+v %s", r, r.stderr)
	}
}
