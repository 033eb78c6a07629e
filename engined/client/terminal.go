package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// defaultDetachKeys are docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// errDetached says that the user typed the keys that detach.
var errDetached = errors.New("read escape sequence")

// terminal returns the descriptor of a reader or writer that is a terminal.
func terminal(stream any) (fd int, ok bool) {
	file, isFile := stream.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	return int(file.Fd()), true
}

// rawTerminal passes keys on as they are typed; restore undoes that.
func rawTerminal(in io.Reader) (restore func(), err error) {
	fd, ok := terminal(in)
	if !ok {
		return func() {}, nil
	}
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("setting the terminal to raw mode: %w", err)
	}
	return func() { _ = term.Restore(fd, before) }, nil
}

// windowSize returns the size of the terminal that out is.
func windowSize(out io.Writer) (height, width uint, ok bool) {
	fd, isTerminal := terminal(out)
	if !isTerminal {
		return 0, 0, false
	}
	columns, rows, err := term.GetSize(fd)
	if err != nil || rows <= 0 || columns <= 0 {
		return 0, 0, false
	}
	return uint(rows), uint(columns), true
}

// followSize tells resize the window's size now and at each change, until the
// returned function is called.
func followSize(ctx context.Context, out io.Writer, resize func(ctx context.Context, height, width uint) error) (stop func()) {
	if _, ok := terminal(out); !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if height, width, ok := windowSize(out); ok {
				_ = resize(ctx, height, width) // the process may have ended
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		cancel()
		<-done
	}
}

// parseKeys reads keys as "ctrl-p,ctrl-q" or "a,ctrl-@".
func parseKeys(text string) ([]byte, error) {
	var keys []byte
	for name := range strings.SplitSeq(text, ",") {
		letter, control := strings.CutPrefix(name, "ctrl-")
		if len(letter) != 1 {
			return nil, fmt.Errorf("invalid detach keys (%s) provided", text)
		}
		key := letter[0]
		if control {
			if key >= 'a' && key <= 'z' {
				key -= 'a' - 'A'
			}
			if key < '@' || key > '_' {
				return nil, fmt.Errorf("invalid detach keys (%s) provided", text)
			}
			key -= '@'
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// detacher reads until the keys are read. Keys that begin the sequence are
// held back until it is clear whether they end it.
type detacher struct {
	in   io.Reader
	keys []byte
	seen int // of keys
}

func (d *detacher) Read(p []byte) (int, error) {
	buffer := make([]byte, max(1, len(p)-len(d.keys)))
	n, err := d.in.Read(buffer)
	kept := p[:0]
	for _, b := range buffer[:n] {
		if b == d.keys[d.seen] {
			if d.seen++; d.seen == len(d.keys) {
				return len(kept), errDetached
			}
			continue
		}
		kept = append(kept, d.keys[:d.seen]...)
		if d.seen = 0; b == d.keys[0] {
			d.seen = 1
			continue
		}
		kept = append(kept, b)
	}
	if err != nil {
		kept = append(kept, d.keys[:d.seen]...)
		d.seen = 0
	}
	return len(kept), err
}
