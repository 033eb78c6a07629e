package runtime

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/shim"
)

// spareLife is how long a shim waits for a container before its memory, two
// thirds of a megabyte, is worth more than the milliseconds of its start.
const spareLife = time.Minute

// Reserve keeps one shim ahead while containers are being started: half of what
// the start of a container takes beside its runtime is the start of its shim. The
// one spare belongs to Keep until it is adopted; it ends with us.
type Reserve struct {
	spares chan *spare   // offered by Keep, and nowhere kept
	wanted chan struct{} // capacity 1
	kept   atomic.Bool
	life   time.Duration // for which one waits at most
}

// NewReserve returns one that is empty until Refill.
func NewReserve() *Reserve {
	return &Reserve{spares: make(chan *spare), wanted: make(chan struct{}, 1), life: spareLife}
}

// Kept reports whether there is a spare shim.
func (r *Reserve) Kept() bool { return r.kept.Load() }

// Refill says that a container was started, and that another may be. It never waits.
func (r *Reserve) Refill() {
	select {
	case r.wanted <- struct{}{}:
	default: // it has been said
	}
}

// Keep starts a spare shim whenever one is wanted, and offers it until it is
// adopted or has waited for too long. It returns when ctx has ended and no spare
// shim is left.
func (r *Reserve) Keep(ctx context.Context, h *Host) {
	for {
		select {
		case <-r.wanted:
		case <-ctx.Done():
			return
		}
		s, err := h.startSpare()
		if err != nil {
			h.Logger.Warn("starting a shim ahead", "error", err)
			continue
		}
		r.kept.Store(true)
		r.offer(ctx, h, s)
		r.kept.Store(false)
	}
}

func (r *Reserve) offer(ctx context.Context, h *Host, s *spare) {
	timer := time.NewTimer(r.life)
	defer timer.Stop()
	select {
	case r.spares <- s:
	case <-timer.C:
		s.end(h.Limits.Shim)
	case <-ctx.Done():
		s.end(h.Limits.Shim)
	}
}

// adopt makes the spare shim, if there is one, the shim of c. It returns nil where
// a shim is to be started instead.
func (r *Reserve) adopt(c *Container, listener, log *os.File) *shimProcess {
	if r == nil || len(c.record.ID)+len(c.record.Bundle)+len(c.record.Runtime)+3 > shim.TitleRoom {
		return nil
	}
	select {
	case s := <-r.spares:
		if err := s.adopt(c, listener, log); err != nil {
			c.host.Logger.Warn("a shim that was started ahead is of no use", "pid", s.process.pid, "error", err)
			s.end(c.host.Limits.Shim)
			return nil
		}
		return s.process
	default:
		return nil
	}
}

// spare is a shim that waits for a container. That it has died is seen when it
// is needed: to watch it would take a goroutine that it then kept.
type spare struct {
	process *shimProcess
	socket  *os.File
}

// startSpare starts a shim that waits.
func (h *Host) startSpare() (*spare, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a pair of sockets: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "socket of a spare shim"), os.NewFile(uintptr(pair[1]), "its other end")
	defer theirs.Close()
	process, err := h.spawn([]string{shim.SpareCommand, h.StateDir, strings.Repeat(" ", shim.TitleRoom)}, h.StateDir, theirs, os.Stderr)
	if err != nil {
		ours.Close()
		return nil, err
	}
	failpoint.At("runtime-spare-started")
	return &spare{process, ours}, nil
}

// adopt hands the container over, with one message: the shim has it whole or not
// at all, whatever becomes of us.
func (s *spare) adopt(c *Container, listener, log *os.File) error {
	if s.process.dead() {
		return fmt.Errorf("it has ended")
	}
	packet, err := shim.MakePacket(shim.Adopt, 0, shim.Adoption{
		Dir: c.dir, ID: c.record.ID, Bundle: c.record.Bundle, Runtime: c.record.Runtime,
	})
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(listener.Fd()), int(log.Fd()))
	if err := unix.Sendmsg(int(s.socket.Fd()), shim.AppendPacket(nil, packet), rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err != nil {
		return err
	}
	failpoint.At("runtime-spare-adopted")
	return s.socket.Close()
}

// end closes the connection, which ends the shim, and waits for that. One that takes
// longer than limit is killed.
func (s *spare) end(limit time.Duration) {
	s.socket.Close()
	bounded, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if s.process.wait(bounded) != nil { // stopped, perhaps
		_ = s.process.kill() // it may have ended just now
		_ = s.process.wait(context.Background())
	}
}
