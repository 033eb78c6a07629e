package cli

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/engined/engined/integration/harness"
)

// terminal is a command on a pseudo terminal, spoken to as a person would.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	file interface {
		Write([]byte) (int, error)
		Close() error
	}
	resize func(rows, columns uint16) error

	mu      sync.Mutex // guards the next three
	said    strings.Builder
	seen    int // how much of said was expected already
	changed chan struct{}
}

const answerTimeout = 20 * time.Second

func openTerminal(t *testing.T, cmd *exec.Cmd, rows, columns uint16) *terminal {
	t.Helper()
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, file: file, changed: make(chan struct{}),
		resize: func(rows, columns uint16) error {
			return pty.Setsize(file, &pty.Winsize{Rows: rows, Cols: columns})
		}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buffer := make([]byte, 4096)
		for {
			n, err := file.Read(buffer)
			term.hear(buffer[:n])
			if err != nil { // EIO when the last writer is gone
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = file.Close()
		<-read
	})
	return term
}

func (term *terminal) hear(text []byte) {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.said.Write(text)
	close(term.changed)
	term.changed = make(chan struct{})
}

func (term *terminal) say(text string) {
	term.t.Helper()
	if _, err := term.file.Write([]byte(text)); err != nil {
		term.t.Fatal(err)
	}
}

// expect waits for text after what was expected before.
func (term *terminal) expect(text string) {
	term.t.Helper()
	deadline := time.After(answerTimeout)
	for {
		term.mu.Lock()
		unseen := term.said.String()[term.seen:]
		changed := term.changed
		if at := strings.Index(unseen, text); at >= 0 {
			term.seen += at + len(text)
			term.mu.Unlock()
			return
		}
		term.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			term.t.Fatalf("%v: waited for %q, the terminal shows %q", term.cmd.Args, text, unseen)
		}
	}
}

// status waits for the command's end.
func (term *terminal) status() int {
	term.t.Helper()
	expired := time.AfterFunc(answerTimeout, func() { _ = term.cmd.Process.Kill() })
	defer expired.Stop()
	var exit *exec.ExitError
	if err := term.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		term.t.Fatal(err)
	}
	return term.cmd.ProcessState.ExitCode()
}

func onStack(t *testing.T, test func(t *testing.T, cli harness.CLI)) {
	stack := harness.New(t, harness.Options{})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) { test(t, cli.At(t, stack.Host())) })
}

func TestShellOnATerminal(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := openTerminal(t, cli.Command(context.Background(), "run", "--rm", "-it", "busybox"), 33, 77)
		term.expect("# ")
		// The client sets the size after the start; the shell's answer is
		// asked for until it is there.
		term.say("until stty size | grep '33 77'; do :; done\n")
		term.expect("\n33 77")
		if err := term.resize(44, 88); err != nil {
			t.Fatal(err)
		}
		term.say("until stty size | grep '44 88'; do :; done\n")
		term.expect("\n44 88")
		term.say("tty; echo $TERM; exit 5\n")
		term.expect("/dev/pts/0")
		term.expect("xterm")
		if status := term.status(); status != 5 {
			t.Errorf("status %d", status)
		}
	})
}

func TestInterruptReachesTheForeground(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := openTerminal(t, cli.Command(context.Background(), "run", "--rm", "-it", "busybox"), 24, 80)
		term.expect("# ")
		term.say("echo wait; sleep 1000\n")
		term.expect("\nwait")
		term.say("\x03")
		term.expect("# ")
		term.say("exit 6\n")
		if status := term.status(); status != 6 {
			t.Errorf("status %d", status)
		}
	})
}

func TestDetachAndAttachAgain(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := openTerminal(t, cli.Command(context.Background(), "run", "-it", "--name", "shell", "busybox"), 24, 80)
		term.expect("# ")
		term.say("kept=alive\n")
		term.expect("# ")
		term.say("\x10\x11") // ctrl-p ctrl-q
		if status := term.status(); status != 0 {
			t.Errorf("status %d after detaching", status)
		}
		if state := cli.Must(t, "inspect", "-f", "{{.State.Status}}", "shell"); state != "running\n" {
			t.Errorf("it is %q after detaching", state)
		}
		again := openTerminal(t, cli.Command(context.Background(), "attach", "shell"), 24, 80)
		again.say("echo still $kept; exit 3\n")
		again.expect("still alive")
		if status := again.status(); status != 3 {
			t.Errorf("status %d", status)
		}
		cli.Must(t, "rm", "shell")
	})
}

func TestExecOnATerminal(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		cli.Must(t, "run", "-d", "--name", "host", "busybox", "sleep", "1000")
		term := openTerminal(t, cli.Command(context.Background(), "exec", "-it", "host", "sh"), 40, 90)
		term.expect("# ")
		term.say("until stty size | grep '40 90'; do :; done\n")
		term.expect("\n40 90")
		term.say("exit 4\n")
		if status := term.status(); status != 4 {
			t.Errorf("status %d", status)
		}
		cli.Must(t, "rm", "-f", "host")
	})
}
