package logfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a follower looks where inotify has no instance left
// (fs.inotify.max_user_instances is 128 by default).
const pollInterval = 200 * time.Millisecond

// watch tells a follower that something in the log's directory has changed.
type watch struct {
	inotify *os.File // nil: none to be had
	changed chan struct{}
	ended   chan struct{} // closed when the receiving goroutine has ended
}

func newWatch(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return &watch{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watching the log: %w", err)
	}
	dir := filepath.Dir(path)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOSPC) { // max_user_watches
			return &watch{}, nil
		}
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	w := &watch{os.NewFile(uintptr(fd), "inotify"), make(chan struct{}, 1), make(chan struct{})}
	go w.receive()
	return w, nil
}

func (w *watch) receive() {
	defer close(w.ended)
	var events [4096]byte
	for {
		if _, err := w.inotify.Read(events[:]); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}

// wait returns when the reader should look again, with io.EOF at until, or with ctx's error.
func (w *watch) wait(ctx context.Context, done <-chan struct{}, until time.Time) error {
	var tick <-chan time.Time
	if w.inotify == nil {
		timer := time.NewTimer(pollInterval)
		defer timer.Stop()
		tick = timer.C
	}
	var over <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-w.changed:
	case <-done:
	case <-tick:
	case <-over:
		return io.EOF
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (w *watch) close() {
	if w.inotify != nil {
		w.inotify.Close()
		<-w.ended
	}
}
