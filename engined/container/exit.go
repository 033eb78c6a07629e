package container

import (
	"context"
	"errors"
	"strconv"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/task"
)

// errStale says that an exit is of no present run.
var errStale = errors.New("stale")

// exited handles the end of a container's first process, once: it is put on
// disk, in memory, told, and then torn down. It waits for no verb.
func (s *Service) exited(c *container, exit task.Exit) {
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	err := s.noteExit(ctx, c, exit)
	if errors.Is(err, errStale) {
		return
	}
	if err != nil {
		s.Logger.Error("recording an exit; it is recorded at the next start", "container", c.id, "error", err)
		return
	}
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
	return s.changeLocked(ctx, c, func(r *Record) error { return r.applyStopped(exit) })
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
