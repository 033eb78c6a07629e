package container

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// parking is the place of a client that attaches before the start. It is taken
// before the client is told that it is attached, since `docker run` starts the
// container as soon as it hears that; the connection arrives after.
type parking struct {
	arrived chan struct{} // closed when the connection is there, or will not come

	mu      sync.Mutex // guards what follows
	conn    net.Conn
	req     shim.AttachRequest
	taken   bool          // by a start
	closed  bool          // nobody will want the connection
	watched chan struct{} // closed when the watcher has ended; nil: there is none
}

// park takes a place, unless the container runs: then it returns the shim's
// socket.
func (c *container) park() (p *parking, socket string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record.Load()
	if r.up() {
		return nil, r.Run.Socket, nil
	}
	if c.waiters == nil { // removed meanwhile
		return nil, "", errdefs.NotFound.Coded(errdefs.NoSuchContainer, c.id, "No such container: %s", c.id)
	}
	p = &parking{arrived: make(chan struct{})}
	c.parked = append(c.parked, p)
	return p, "", nil
}

// unpark empties the waiting room.
func (c *container) unpark() []*parking {
	c.mu.Lock()
	defer c.mu.Unlock()
	parked := c.parked
	c.parked = nil
	return parked
}

// leave gives a place up.
func (c *container) leave(p *parking) {
	c.mu.Lock()
	if at := slices.Index(c.parked, p); at >= 0 {
		c.parked = slices.Delete(c.parked, at, at+1)
	}
	c.mu.Unlock()
}

// arrive brings the connection to its place. Unless a start has taken that,
// a goroutine watches from now on whether the client leaves.
func (c *container) arrive(p *parking, conn net.Conn, req shim.AttachRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer close(p.arrived)
	if p.closed {
		conn.Close()
		return
	}
	p.conn, p.req = conn, req
	if !p.taken {
		p.watched = make(chan struct{})
		go c.watch(p, conn, p.watched)
	}
}

// fail says that no connection will come.
func (c *container) fail(p *parking) {
	c.leave(p)
	close(p.arrived)
}

// take waits for the connection and returns it for the shim. Nil: the client
// is not there.
func (p *parking) take(ctx context.Context) (net.Conn, shim.AttachRequest) {
	p.mu.Lock()
	p.taken = true
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, shim.AttachWait)
	defer cancel()
	select {
	case <-p.arrived:
	case <-ctx.Done():
		p.hangUp() // the shim does not wait longer either
		return nil, shim.AttachRequest{}
	}
	p.endWatch()
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.conn
	p.conn = nil
	return conn, p.req
}

// hangUp closes the connection, or lets it be closed when it arrives.
func (p *parking) hangUp() {
	p.endWatch()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// endWatch ends the watcher, if there is one, and waits for it.
func (p *parking) endWatch() {
	p.mu.Lock()
	conn, watched := p.conn, p.watched
	p.watched = nil
	p.mu.Unlock()
	if watched == nil || conn == nil {
		return
	}
	_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
	<-watched
	_ = conn.SetReadDeadline(time.Time{})
}

func closeParked(parked []*parking) {
	for _, p := range parked {
		p.hangUp()
	}
}

// watch drops a client that hangs up before the start. What it has sent stays
// unread, for the process. After input it can no longer be told whether the
// client is there; the start finds out.
func (c *container) watch(p *parking, conn net.Conn, watched chan struct{}) {
	defer close(watched)
	if hungUp(conn) {
		c.leave(p)
		conn.Close()
	}
}

// hungUp waits until the client closes its end (true), sends something, or the
// read deadline is set (false).
func hungUp(conn net.Conn) bool {
	descriptor, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := descriptor.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return false
		}
		ended = err != nil || n == 0 && peerGone(int(fd))
		return true
	})
	return ended && !errors.Is(err, os.ErrDeadlineExceeded)
}

// peerGone tells a client that has left from one that only sends no more: a
// `docker start -a </dev/null` half-closes and reads on.
func peerGone(fd int) bool {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := unix.Poll(polled, 0); err != nil {
		return false
	}
	return polled[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
