package container

import (
	"errors"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/shim"
)

// parking is a client that has attached before the start. A goroutine watches
// whether it leaves; it ends in drive.
type parking struct {
	conn    net.Conn
	req     shim.AttachRequest
	watched chan struct{} // closed when the watcher has ended
}

// park puts a client into the container's waiting room, unless the container
// runs: then it returns the shim's socket.
func (c *container) park(p *parking) (socket string, up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record.Load()
	if r.up() {
		return r.Run.Socket, true
	}
	if c.waiters == nil { // removed meanwhile
		p.conn.Close()
		return "", false
	}
	c.parked = append(c.parked, p)
	go c.watch(p)
	return "", false
}

// unpark empties the waiting room.
func (c *container) unpark() []*parking {
	c.mu.Lock()
	defer c.mu.Unlock()
	parked := c.parked
	c.parked = nil
	return parked
}

// drive ends the watcher: the connection now belongs to the caller alone.
func (p *parking) drive() {
	p.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
	<-p.watched
	p.conn.SetReadDeadline(time.Time{})
}

func closeParked(parked []*parking) {
	for _, p := range parked {
		p.drive()
		p.conn.Close()
	}
}

// watch drops a client that hangs up before the start. What it has sent stays
// unread, for the process. After input it can no longer be told whether the
// client is there; the start finds out.
func (c *container) watch(p *parking) {
	defer close(p.watched)
	if !hungUp(p.conn) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := slices.Index(c.parked, p); at >= 0 {
		c.parked = slices.Delete(c.parked, at, at+1)
		p.conn.Close()
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
