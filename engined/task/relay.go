package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// relays are the connections that engined copies itself, because they have no
// descriptor to pass (TLS). They end with engined.
type relays struct {
	copying sync.WaitGroup

	mu     sync.Mutex // guards what follows
	open   map[net.Conn]struct{}
	closed bool
}

// relay passes one end of a socketpair to the shim and copies between the
// other and conn until both directions have ended.
func (c *Client) relay(ctx context.Context, socket string, req shim.AttachRequest, conn net.Conn) error {
	near, far, err := socketpair()
	if err != nil {
		conn.Close()
		return fmt.Errorf("attaching: %w", err)
	}
	defer far.Close()
	ahead := req.Read
	req.Read = nil
	if err := send(ctx, socket, req, far.Fd()); err != nil {
		near.Close()
		conn.Close()
		return err
	}
	if !c.relays.start(near, conn, ahead) {
		near.Close()
		conn.Close()
		return errdefs.Unavailable.Errorf("attaching: shutting down")
	}
	return nil
}

// start copies until the process's output ends, then closes both. The
// client's input alone ending only closes the process's.
func (r *relays) start(near, conn net.Conn, ahead []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if r.open == nil {
		r.open = make(map[net.Conn]struct{})
	}
	r.open[near] = struct{}{}
	input := make(chan struct{})
	r.copying.Go(func() {
		defer close(input)
		if _, err := near.Write(ahead); err == nil {
			_, _ = io.Copy(near, conn) // how it ended is the client's business
		}
		closeWrite(near)
	})
	r.copying.Go(func() {
		_, _ = io.Copy(conn, near)
		closeWrite(conn)
		near.Close()
		conn.Close()
		<-input
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, near)
	})
	return true
}

// close ends all relays and waits for them.
func (r *relays) close() {
	r.mu.Lock()
	r.closed = true
	for near := range r.open {
		near.Close()
	}
	r.mu.Unlock()
	r.copying.Wait()
}

// closeWrite tells the peer that no more comes, where the connection can.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails only if the connection is gone
	}
}

// socketpair returns two ends of a stream: one for Go's poller, one to send.
func socketpair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "relay")
	near, err = net.FileConn(file) // has a copy of the descriptor
	err = errors.Join(err, file.Close())
	if err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return near, os.NewFile(uintptr(fds[1]), "relay to the shim"), nil
}
