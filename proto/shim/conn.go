package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// maxFDs is how many descriptors one message may carry; the packets need one.
const maxFDs = 4

// Conn sends and receives packets on a SOCK_SEQPACKET socket. One goroutine may
// send while another receives. (The shim itself does not use it: its loop owns
// bare descriptors.)
type Conn struct {
	file   *os.File
	buffer []byte // Receive's
}

// Dial connects to the shim that listens at path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	if err := connect(ctx, fd, path); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connecting to the shim at %s: %w", path, err)
	}
	return NewConn(fd), nil
}

// connect connects fd to path, which may be longer than the 107 bytes that fit
// into a socket address.
func connect(ctx context.Context, fd int, path string) error {
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		path = "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT):
			return errdefs.Unavailable.Errorf("%w", err)
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return err
		}
		// EAGAIN: the shim's backlog is full. Unix sockets tell nobody when that
		// ends, connect(2).
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// NewConn takes over fd, a connected, non-blocking SOCK_SEQPACKET socket.
func NewConn(fd int) *Conn {
	return &Conn{file: os.NewFile(uintptr(fd), "shim socket")}
}

// Send sends p. The descriptors in it stay the caller's.
func (c *Conn) Send(ctx context.Context, p Packet) error {
	message := AppendPacket(make([]byte, 0, HeaderSize+len(p.Body)), p)
	var rights []byte
	if len(p.FDs) > 0 {
		rights = unix.UnixRights(p.FDs...)
	}
	unwatch := watch(ctx, c.file.SetWriteDeadline)
	err := c.perform(false, func(fd int) error {
		_, err := unix.SendmsgN(fd, message, rights, nil, unix.MSG_NOSIGNAL)
		return err
	})
	unwatch()
	return explain(ctx, err, "sending to the shim")
}

// Receive returns the next packet; its body is valid until the next call and
// its descriptors are the caller's. It is io.EOF when the other side is gone,
// and an error with kind InvalidArgument or FailedPrecondition, after which the
// connection is still good, when the packet was bad.
func (c *Conn) Receive(ctx context.Context) (Packet, error) {
	var n int
	var fds []int
	unwatch := watch(ctx, c.file.SetReadDeadline)
	err := c.perform(true, func(fd int) (err error) {
		if err := c.makeRoom(fd); err != nil {
			return err
		}
		n, fds, err = ReceiveMessage(fd, c.buffer)
		return err
	})
	unwatch()
	if err := explain(ctx, err, "receiving from the shim"); err != nil {
		return Packet{}, err
	}
	if n == 0 {
		return Packet{}, io.EOF
	}
	p, err := ParsePacket(c.buffer[:n])
	p.FDs = fds
	return p, err
}

// usualSize is more than any packet has but an error with a long text. There is
// a connection to each shim, so a buffer of the greatest size is not kept.
const usualSize = 1 << 10

// makeRoom makes the buffer as long as the next message, but not longer than the
// longest that is allowed and one byte, by which ParsePacket knows it is longer.
func (c *Conn) makeRoom(fd int) error {
	n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil {
		return err
	}
	if size := min(max(n, usualSize), HeaderSize+MaxBody+1); size > len(c.buffer) || len(c.buffer) > usualSize {
		c.buffer = make([]byte, size)
	}
	return nil
}

// perform calls do until it no longer says EAGAIN, waiting in between.
func (c *Conn) perform(read bool, do func(fd int) error) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	wait := raw.Write
	if read {
		wait = raw.Read
	}
	var failed error
	err = wait(func(fd uintptr) bool {
		for {
			failed = do(int(fd))
			if !errors.Is(failed, unix.EINTR) {
				return !errors.Is(failed, unix.EAGAIN)
			}
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// watch makes the call that waits with this deadline fail when ctx ends, until
// unwatch is called.
func watch(ctx context.Context, setDeadline func(time.Time) error) (unwatch func()) {
	finished := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = setDeadline(time.Unix(1, 0))
		close(finished)
	})
	return func() {
		if !stop() {
			<-finished
			_ = setDeadline(time.Time{})
		}
	}
}

// explain says what failed, and that ctx was the reason if it was.
func explain(ctx context.Context, err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return errdefs.Unavailable.Errorf("%s: %w", doing, errors.Join(io.EOF, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Close closes the socket; a Receive that waits returns os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// ReceiveMessage receives one message with its descriptors from fd into buf.
// n is 0 at the end of the stream. Descriptors beyond what a message may have
// are closed, by the kernel or here.
func ReceiveMessage(fd int, buf []byte) (n int, fds []int, err error) {
	control := make([]byte, unix.CmsgSpace(maxFDs*4))
	n, controlled, _, _, err := unix.Recvmsg(fd, buf, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil || controlled == 0 {
		return n, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlled])
	if err != nil {
		return n, nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err == nil {
			fds = append(fds, got...)
		}
	}
	return n, fds, nil
}
