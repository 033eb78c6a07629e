package harness

import (
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/engined/engined/integration/bundle"
)

// Terminal is a command on a pseudo terminal, spoken to as a person would.
type Terminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	file interface {
		Write([]byte) (int, error)
		Close() error
	}
	Resize func(rows, columns uint16) error

	mu      sync.Mutex // guards the next four
	ended   bool       // nothing more will be said
	said    strings.Builder
	seen    int // how much of said was expected already
	changed chan struct{}
}

var answerTimeout = bundle.Patience(20 * time.Second)

// OpenTerminal starts the command; it is killed with the test if it still runs.
func OpenTerminal(t testing.TB, cmd *exec.Cmd, rows, columns uint16) *Terminal {
	t.Helper()
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: rows, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	term := &Terminal{t: t, cmd: cmd, file: file, changed: make(chan struct{}),
		Resize: func(rows, columns uint16) error {
			return pty.Setsize(file, &pty.Winsize{Rows: rows, Cols: columns})
		}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer term.end()
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

func (term *Terminal) hear(text []byte) {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.said.Write(text)
	close(term.changed)
	term.changed = make(chan struct{})
}

func (term *Terminal) end() {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.ended = true
	close(term.changed)
	term.changed = make(chan struct{})
}

// Say types text.
func (term *Terminal) Say(text string) {
	term.t.Helper()
	if _, err := term.file.Write([]byte(text)); err != nil {
		term.t.Fatal(err)
	}
}

// Expect waits for text after what was expected before.
func (term *Terminal) Expect(text string) {
	term.t.Helper()
	deadline := time.After(answerTimeout)
	for {
		term.mu.Lock()
		unseen := term.said.String()[term.seen:]
		changed, ended := term.changed, term.ended
		if at := strings.Index(unseen, text); at >= 0 {
			term.seen += at + len(text)
			term.mu.Unlock()
			return
		}
		term.mu.Unlock()
		if ended {
			term.t.Fatalf("%v: ended instead of saying %q; the terminal shows %q", term.cmd.Args, text, unseen)
		}
		select {
		case <-changed:
		case <-deadline:
			term.t.Fatalf("%v: waited for %q, the terminal shows %q", term.cmd.Args, text, unseen)
		}
	}
}

// Status waits for the command's end.
func (term *Terminal) Status() int {
	term.t.Helper()
	expired := time.AfterFunc(answerTimeout, func() { _ = term.cmd.Process.Kill() })
	defer expired.Stop()
	var exit *exec.ExitError
	if err := term.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		term.t.Fatal(err)
	}
	return term.cmd.ProcessState.ExitCode()
}
