package container

import (
	"context"
	"errors"
	"strconv"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/task"
)

// errStale says that an exit is of no present run, or known of that already.
var errStale = errors.New("stale")

// exited handles the end of a container's first process, once: it is put on
// disk, in memory, told, and then torn down. It waits for no verb.
func (s *Service) exited(c *container, exit task.Exit) {
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	switch err := s.noteExit(ctx, c, exit); {
	case errors.Is(err, errStale):
	case err != nil:
		s.Logger.Error("recording an exit; it is tried again", "container", c.id, "error", err)
		s.recording.Go(func() { s.recordLater(c) })
	default:
		s.tellExit(c, exit)
	}
}

// The pauses between attempts to record an exit: a disk that is full may stay so
// for long.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// recordLater tries to record an exit until that is done or Run ends; then the
// next start of engined does it.
func (s *Service) recordLater(c *container) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		select {
		case <-s.ending:
			return
		case <-time.After(pause):
		}
		exit, err := s.noteUnwritten(c)
		if err == nil {
			s.tellExit(c, exit)
			return
		}
	}
}

// noteUnwritten records the exit that could not be written, and returns it.
func (s *Service) noteUnwritten(c *container) (task.Exit, error) {
	ctx, cancel := noting(context.Background())
	defer cancel()
	c.writing.Lock()
	defer c.writing.Unlock()
	exit := *c.unwritten
	return exit, s.writeExit(ctx, c, exit)
}

// tellExit tells of an exit that is recorded.
func (s *Service) tellExit(c *container, exit task.Exit) {
	r := c.record.Load()
	s.execs.containerExited(c.id)
	if told := c.oom.Swap(false); exit.OOMKilled && !told { // the exit was first
		s.tell(r, apievents.ActionOOM, nil)
	}
	s.tell(r, apievents.ActionDie, map[string]string{
		"exitCode":     strconv.Itoa(exit.Status),
		"execDuration": strconv.Itoa(int(exit.Time.Sub(r.Run.Started) / time.Second)),
	})
	s.following.Go(func() { s.follow(c) })
	c.notifyExit(exit.Status) // last: who waited finds the exit told and the teardown begun
}

// noteExit records the exit of the present run, or keeps it for a start that
// has not had its answer yet.
func (s *Service) noteExit(ctx context.Context, c *container, exit task.Exit) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.record.Load().up() {
		if c.starting {
			c.early = &exit
		}
		return errStale
	}
	if c.unwritten != nil {
		return errStale // the first to say how the run ended is tried again already
	}
	return s.writeExit(ctx, c, exit)
}

// writeExit records the exit of a run, or keeps it for another attempt. The
// caller has c.writing. No start comes before that: the record says running.
func (s *Service) writeExit(ctx context.Context, c *container, exit task.Exit) error {
	c.unwritten = &exit
	if err := s.changeLocked(ctx, c, func(r *Record) error { return r.applyStopped(exit) }); err != nil {
		return err
	}
	c.unwritten = nil
	return nil
}

// follow gives back what the run had, and removes the container if it was
// asked to remove itself.
func (s *Service) follow(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	release, err := c.turn.take(ctx, tearing, c.id)
	if err == nil {
		err = s.settle(ctx, c)
		release()
	}
	if err != nil {
		s.Logger.Error("tearing down; it is tried again with the next verb", "container", c.id, "error", err)
	}
	r := c.record.Load()
	if !r.HostConfig.AutoRemove || r.Phase() != exited {
		return
	}
	if err := s.removeItself(ctx, c); err != nil {
		s.Logger.Error("removing a container after its exit", "container", c.id, "error", err)
	}
}
