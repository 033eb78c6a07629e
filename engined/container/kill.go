package container

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	apievents "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Kill sends a signal, KILL if none is named, to a container's process.
func (s *Service) Kill(ctx context.Context, ref, name string) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	signal := syscall.SIGKILL
	if name != "" {
		if signal, err = parseSignal(name); err != nil {
			return err
		}
	}
	if err := c.turn.pass(ctx, killing, c.id); err != nil {
		return err
	}
	if err := allow(killing, c.record.Load()); err != nil {
		return err
	}
	if err := s.signal(ctx, c, signal); err != nil {
		return err
	}
	if signal != syscall.SIGKILL {
		return nil
	}
	return s.awaitDeath(ctx, c)
}

// awaitDeath waits for a KILL to have its effect, so that what follows a kill
// finds the container stopped.
func (s *Service) awaitDeath(ctx context.Context, c *container) error {
	ended := c.await(waitNotRunning)
	defer c.forget(ended)
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	select {
	case <-ended.done:
		return nil
	case <-ctx.Done():
		return errdefs.DeadlineExceeded.Errorf("container %s did not die of KILL within %v", c.id, killWait)
	}
}

// signal sends a signal to the first process and tells so. A frozen process
// would not notice what is meant to end it: it is thawed, as Docker does.
func (s *Service) signal(ctx context.Context, c *container, signal syscall.Signal) error {
	err := s.Tasks.Signal(ctx, c.id, initProcess, signal)
	if code := errdefs.CodeOf(err); code == errdefs.NotRunning || code == errdefs.NoSuchContainer {
		// It ended by itself; the exit is on its way here.
		return nil
	}
	if err != nil {
		return err
	}
	r := c.record.Load()
	s.tell(r, apievents.ActionKill, map[string]string{"signal": strconv.Itoa(int(signal))})
	ends := signal == syscall.SIGKILL || r.Config.StopSignal == "" || signal == stopSignal(r)
	if r.Phase() == paused && ends {
		return s.thaw(ctx, c)
	}
	return nil
}

// parseSignal reads a signal's number, or its name with or without SIG.
func parseSignal(text string) (syscall.Signal, error) {
	if number, err := strconv.Atoi(text); err == nil {
		if number > 0 && number <= maxSignal {
			return syscall.Signal(number), nil
		}
		return 0, errdefs.InvalidArgument.Errorf("invalid signal: %s", text)
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if signal := unix.SignalNum("SIG" + name); signal != 0 {
		return signal, nil
	}
	if signal, ok := realtime(name); ok {
		return signal, nil
	}
	return 0, errdefs.InvalidArgument.Errorf("invalid signal: %s", text)
}

// The C library's first and last real-time signals: the kernel's first two are
// its own.
const (
	minRealtime = 34
	maxSignal   = 64
)

// realtime reads RTMIN, RTMAX, RTMIN+n and RTMAX-n.
func realtime(name string) (syscall.Signal, bool) {
	base, rest := minRealtime, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = strings.TrimPrefix(name, "RTMIN")
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = maxSignal, strings.TrimPrefix(name, "RTMAX")
	default:
		return 0, false
	}
	offset := 0
	if rest != "" {
		var err error
		if offset, err = strconv.Atoi(rest); err != nil || rest[0] != '+' && rest[0] != '-' {
			return 0, false
		}
	}
	number := base + offset
	return syscall.Signal(number), number >= minRealtime && number <= maxSignal
}
