package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// hearConsole makes the socket at which the runtime hands over the terminal. It
// is in our directory, which is 0700, and the runtime reaches it through
// /proc/PID/cwd: the directory's own path may be too long for an address.
func (l *launch) hearConsole() error {
	l.s.consoles++
	l.socket = "tty" + strconv.Itoa(l.s.consoles) + ".sock"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("making the console socket: %w", err)
	}
	l.ears = fd
	l.undo.Add("close the console socket", func(context.Context) error {
		l.deafen()
		return nil
	})
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: l.socket}); err != nil {
		return fmt.Errorf("binding the console socket %s: %w", l.socket, err)
	}
	l.input = &input{p: l.process, fd: -1, early: true}
	return unix.Listen(fd, 1)
}

// deafen closes and removes the console socket.
func (l *launch) deafen() {
	if l.ears >= 0 {
		unix.Close(l.ears)
		l.ears = -1
		os.Remove(l.socket)
	}
}

// takeConsole receives the terminal's master. The runtime has ended well, so
// connection and message are there already, or never will be.
func (l *launch) takeConsole() error {
	defer l.deafen()
	conn, _, err := unix.Accept4(l.ears, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return fmt.Errorf("the runtime did not connect to the console socket: %w", err)
	}
	defer unix.Close(conn)
	_, fds, err := proto.ReceiveMessage(conn, make([]byte, 4096))
	if err != nil {
		return fmt.Errorf("receiving the terminal: %w", err)
	}
	if len(fds) != 1 {
		closeAll(fds...)
		return errdefs.Internal.Errorf("the runtime sent %d descriptors to the console socket, expected one", len(fds))
	}
	return l.openConsole(fds[0])
}

// openConsole takes over the master.
func (l *launch) openConsole(master int) error {
	l.console = master
	if err := unix.SetNonblock(master, true); err != nil {
		return fmt.Errorf("making the terminal non-blocking: %w", err)
	}
	// Two more descriptors: a descriptor has one place in an epoll instance.
	out, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicating the terminal: %w", err)
	}
	l.outputs = append(l.outputs, &output{p: l.process, stream: logfile.Stdout, fd: out})
	in, err := unix.FcntlInt(uintptr(master), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("duplicating the terminal: %w", err)
	}
	l.input.open(in)
	if l.request.Width == 0 && l.request.Height == 0 {
		return nil
	}
	return l.resize(l.request.Width, l.request.Height)
}

// resize sets the terminal's size.
func (p *process) resize(width, height uint16) error {
	if p.console < 0 {
		return errdefs.InvalidArgument.Errorf("process %s has no terminal", p.name)
	}
	err := unix.IoctlSetWinsize(p.console, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	if errors.Is(err, unix.EIO) { // nobody is at the other end any more
		return nil
	}
	if err != nil {
		return fmt.Errorf("setting the terminal's size: %w", err)
	}
	return nil
}
