package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// connectConsole gets the socket that the child sends the terminal's master
// to: the caller's, or one end of a pair of ours.
func (l *launch) connectConsole() error {
	if l.opts.ConsoleSocket == "" {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		l.console = pair[0]
		l.inherit(pair[1])
		return nil
	}
	fd, err := dialUnix("console socket", l.opts.ConsoleSocket)
	if err != nil {
		return err
	}
	l.inherit(fd)
	return nil
}

// receiveMaster takes the terminal's master from our end of the socket.
func receiveMaster(socket int) (*os.File, error) {
	name, control := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	said, n, _, _, err := unix.Recvmsg(socket, name, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receiving the terminal: %w", err)
	}
	if said == 0 {
		return nil, errdefs.Internal.Errorf("receiving the terminal: the container's process ended before it had one")
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errdefs.Internal.Errorf("receiving the terminal: expected one message, got %d (%v)", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errdefs.Internal.Errorf("receiving the terminal: expected one descriptor, got %d (%v)", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "/dev/ptmx"), nil
}

// relay joins our own terminal, in raw mode, with the container's.
type relay struct {
	master *os.File
	host   int           // our terminal, -1 if we have none
	saved  *unix.Termios // its mode before
	stop   *os.File      // closed when the process has ended
	done   chan error    // output is copied to its end
}

// newRelay starts copying. close ends it.
func newRelay(master *os.File) (*relay, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r := &relay{master: master, host: -1, stop: writer, done: make(chan error, 1)}
	if err := r.raw(); err != nil {
		return nil, errors.Join(err, reader.Close(), writer.Close())
	}
	r.resize()
	go func() {
		r.done <- errors.Join(copyOutput(int(master.Fd()), int(reader.Fd())), reader.Close())
	}()
	// Nobody waits for this one: a read of a terminal cannot be cut short,
	// and our own process ends soon after the container's.
	go io.Copy(master, os.Stdin) //nolint:errcheck // see above
	return r, nil
}

// copyOutput copies until the terminal's last writer is gone (EIO), or, once
// stop is closed, until nothing is left to read: a process that the container's
// left behind may hold the terminal for ever.
func copyOutput(master, stop int) error {
	buffer := make([]byte, 32<<10)
	wait := -1
	for {
		ready := []unix.PollFd{{Fd: int32(master), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, wait)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		case ready[0].Revents == 0 && wait == 0:
			return nil
		case ready[0].Revents == 0:
			wait = 0
			continue
		}
		n, err = unix.Read(master, buffer)
		if errors.Is(err, unix.EIO) || n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the terminal: %w", err)
		}
		if _, err := os.Stdout.Write(buffer[:n]); err != nil {
			return err
		}
	}
}

// plainLines reports whether the container's terminal shall write no carriage return
// before each line's end: if our output is a file or a pipe, as runc does.
func (l *launch) plainLines() bool {
	if l.mode != attached || !l.spec.Process.Terminal {
		return false
	}
	_, err := unix.IoctlGetTermios(1, unix.TCGETS)
	return err != nil
}

// raw passes all through as it is, as cfmakeraw(3): what is to be processed the
// container's terminal has. Ours is whichever of the standard descriptors is one.
func (r *relay) raw() error {
	var mode *unix.Termios
	for _, fd := range []int{2, 1, 0} { // runc's order
		var err error
		if mode, err = unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			r.host = fd
			break
		}
	}
	if r.host < 0 {
		return nil
	}
	saved := *mode
	mode.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	mode.Oflag &^= unix.OPOST
	mode.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Cflag = mode.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(r.host, unix.TCSETS, mode); err != nil {
		return fmt.Errorf("setting the terminal's mode: %w", err)
	}
	r.saved = &saved
	return nil
}

// resize gives the container's terminal the size of ours.
func (r *relay) resize() {
	if r.host < 0 {
		return
	}
	size, err := unix.IoctlGetWinsize(r.host, unix.TIOCGWINSZ)
	if err != nil {
		return
	}
	unix.IoctlSetWinsize(int(r.master.Fd()), unix.TIOCSWINSZ, size) //nolint:errcheck // the other end may be gone
}

// close waits for the output's end and gives our terminal its mode back.
func (r *relay) close() error {
	err := errors.Join(r.stop.Close(), <-r.done)
	if r.saved != nil {
		err = errors.Join(err, unix.IoctlSetTermios(r.host, unix.TCSETS, r.saved))
	}
	return errors.Join(err, r.master.Close())
}

// listenFDs is the number of descriptors that systemd's socket activation
// handed to us from 3 on (sd_listen_fds(3)); the container's process gets them.
// Those of another process, whose environment we have, are not ours to give.
func listenFDs() int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
