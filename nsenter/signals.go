package nsenter

// #include "signals.h"
import "C"

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Signals are those sent to this process while it is attached to a container's:
// every one that can be caught, SIGCHLD too, but not SIGURG and SIGPROF, which
// the Go runtime needs. There is one at a time in a process.
type Signals struct {
	notes, handler int // a pipe's ends
	buffer         [64]byte
}

// CatchSignals takes all signals over, until Release.
func CatchSignals() (*Signals, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("making a pipe for signals: %w", err)
	}
	s := &Signals{notes: pipe[0], handler: pipe[1]}
	// A handler must not wait for its reader, which may be the same thread.
	if err := unix.SetNonblock(s.handler, true); err != nil {
		s.close()
		return nil, fmt.Errorf("making a pipe for signals: %w", err)
	}
	if errno := C.signals_note(C.int(s.handler)); errno != 0 {
		s.close()
		return nil, fmt.Errorf("catching signals: %w", unix.Errno(errno))
	}
	return s, nil
}

// Wait returns the signals that came since, and waits for one if there are none.
// The slice is good until the next call.
func (s *Signals) Wait() ([]byte, error) {
	for {
		n, err := unix.Read(s.notes, s.buffer[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("waiting for signals: %w", err)
		}
		return s.buffer[:n], nil
	}
}

// Release gives signals their previous handlers.
func (s *Signals) Release() {
	C.signals_release()
	s.close()
}

func (s *Signals) close() {
	unix.Close(s.notes)
	unix.Close(s.handler)
}
