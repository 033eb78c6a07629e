package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
)

// fifoWait is how long a Start waits for somebody to read from its fifos.
const fifoWait = 10 * time.Second

// fifos returns the fifos that output goes to.
func (p *process) fifos() map[logfile.Stream]string {
	fifos := map[logfile.Stream]string{}
	if p.request.Stdout != "" {
		fifos[logfile.Stdout] = p.request.Stdout
	}
	if p.request.Stderr != "" && !p.request.Terminal {
		fifos[logfile.Stderr] = p.request.Stderr
	}
	return fifos
}

// awaitFifos calls done when each of the fifos for output has been opened by a
// reader, or with an error that names the one that was not.
func (l *launch) awaitFifos(done func(error)) {
	var absent []string
	for _, path := range l.fifos() {
		read, err := l.holdFifo(path)
		if err != nil {
			done(err)
			return
		}
		if !read {
			absent = append(absent, path)
		}
	}
	if len(absent) == 0 {
		done(nil)
		return
	}
	if err := l.watchFifo(absent[0], done); err != nil {
		done(err)
	}
}

// holdFifo reports whether somebody has the fifo open for reading. From the
// first call on its writing end is held, until openFifos has it: whoever opens
// it to read does not wait for a writer (only then is there an IN_OPEN), nor
// sees one come and go, which would be the end of the output.
func (l *launch) holdFifo(path string) (read bool, err error) {
	fd, held := l.held[path]
	if !held {
		if fd, err = openWriting(path); err != nil {
			return false, err
		}
		if l.held == nil {
			l.held = map[string]int{}
		}
		l.held[path] = fd
	}
	return hasReader(fd)
}

// openWriting opens a fifo's writing end alone, whether or not anybody reads:
// that takes a reader (ENXIO, fifo(7)), which for a moment is us.
func openWriting(path string) (int, error) {
	both, err := openFifo(path, unix.O_RDWR)
	if err != nil {
		return -1, err
	}
	defer unix.Close(both)
	return openFifo(fmt.Sprintf("/proc/self/fd/%d", both), unix.O_WRONLY)
}

// hasReader asks poll(2), which reports an error for a pipe that nobody reads.
func hasReader(fd int) (bool, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		_, err := unix.Poll(poll, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("asking whether a fifo has a reader: %w", err)
		}
		return poll[0].Revents&unix.POLLERR == 0, nil
	}
}

func (l *launch) letFifosGo() {
	for _, fd := range l.held {
		unix.Close(fd)
	}
	l.held = nil
}

func openFifo(path string, mode int) (int, error) {
	fd, err := unix.Open(path, mode|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening the fifo %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return -1, errdefs.InvalidArgument.Errorf("%s is no fifo", path)
	}
	return fd, nil
}

// watchFifo looks again whenever somebody opens the fifo.
func (l *launch) watchFifo(path string, done func(error)) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watching the fifo %s: %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		unix.Close(fd)
		return fmt.Errorf("watching the fifo %s: %w", path, err)
	}
	var limit *timer
	var source *source
	finish := func(err error) {
		l.abort = nil
		l.s.stop(limit)
		l.s.remove(source)
		unix.Close(fd)
		if err != nil {
			done(err)
			return
		}
		l.awaitFifos(done)
	}
	look := func() {
		read, err := l.holdFifo(path)
		if read || err != nil {
			finish(err)
		}
	}
	source, err = l.s.add(fd, unix.EPOLLIN, func(uint32) {
		var events [4096]byte
		_, _ = unix.Read(fd, events[:])
		look()
	})
	if err != nil {
		unix.Close(fd)
		return err
	}
	limit = l.s.after(fifoWait, func() {
		finish(errdefs.DeadlineExceeded.Errorf("nobody opened the fifo %s for reading within %s", path, fifoWait))
	})
	l.abort = finish
	look() // it may have been opened before the watch
	return nil
}

// openFifos makes the process's fifos its sinks. Both ends are held, as
// containerd 0.2 did: a client may go and come back.
func (l *launch) openFifos() error {
	defer l.letFifosGo()
	for stream, path := range l.fifos() {
		k := &sink{stdout: stream == logfile.Stdout, stderr: stream == logfile.Stderr}
		if err := l.addFifo(k, path); err != nil {
			return err
		}
	}
	if l.request.Stdin == "" {
		return nil
	}
	return l.addFifo(&sink{stdin: true}, l.request.Stdin)
}

// takeFifo takes all that stdin's fifo holds, however much is queued: it was written
// before whoever did so has the shim close stdin, which comes in another way.
func (p *process) takeFifo() {
	for _, k := range p.sinks {
		if !k.fifo || !k.stdin {
			continue
		}
		left, err := unix.FcntlInt(uintptr(k.fd), unix.F_GETPIPE_SZ, 0)
		for n := 1; err == nil && n > 0 && left > 0; left -= n {
			n = k.receive()
		}
	}
}

func (l *launch) addFifo(k *sink, path string) error {
	fd, err := openFifo(path, unix.O_RDWR)
	if err != nil {
		return err
	}
	k.s, k.p, k.fd, k.fifo = l.s, l.process, fd, true
	if k.source, err = l.s.add(fd, 0, k.ready); err != nil {
		unix.Close(fd)
		return err
	}
	l.s.sinks[k] = struct{}{}
	l.sinks = append(l.sinks, k)
	l.undo.Add("close the fifo "+path, func(context.Context) error {
		k.drop()
		return nil
	})
	k.update()
	return nil
}
