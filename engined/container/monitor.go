package container

import (
	"context"
	"errors"
	"fmt"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// Run reconciles the containers with what runs, then follows the supervisor's
// events until ctx ends, and waits for what it has begun. It is called once.
func (s *Service) Run(ctx context.Context) error {
	defer s.following.close()
	defer s.recording.close() // before: what it records is followed
	defer close(s.ending)
	defer s.dropParked()
	snapshot, err := s.Tasks.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("asking the supervisor what runs: %w", err)
	}
	if err := s.reconcileAll(ctx, snapshot); err != nil {
		return err
	}
	close(s.ready)
	for event, err := range s.Tasks.EventsAfter(ctx, snapshot.Seq) {
		if err != nil {
			if ctx.Err() != nil {
				return nil // asked to end
			}
			return fmt.Errorf("following the supervisor's events: %w", err)
		}
		s.handle(ctx, event)
	}
	return nil
}

// handle takes one event in. It waits for nothing but the database: what takes
// longer goes on beside it.
func (s *Service) handle(ctx context.Context, event task.Event) {
	if event.Type == task.EventSnapshot {
		if event.Snapshot != nil {
			s.reconcile(ctx, *event.Snapshot)
		}
		return
	}
	c, err := s.index.find(event.ID)
	if err != nil {
		return // of another engine's container, or of one that was removed
	}
	switch event.Type {
	case task.EventExit:
		if event.Process == initProcess {
			s.exited(c, *event.Exit)
		} else {
			s.execEnded(ctx, c.id, event.Process, *event.Exit)
		}
	case task.EventOOM:
		s.oomed(c)
	case task.EventPause, task.EventResume:
		s.following.Go(func() { s.agree(ctx, c) })
	}
}

// agree makes the record say whether the container is frozen, which is news
// only if it was not this engine's doing. The event may be old by the time a
// verb that did it is through: what counts is what is so then.
func (s *Service) agree(ctx context.Context, c *container) {
	release, err := c.turn.take(ctx, tearing, c.id)
	if err != nil {
		return // at the next start, then
	}
	defer release()
	ctx, cancel := begun(ctx)
	defer cancel()
	now, err := s.Tasks.State(ctx, c.id)
	if err == nil {
		err = s.noteStatus(ctx, c, now.Status)
	}
	if kind := errdefs.KindOf(err); err != nil && kind != errdefs.NotFound && kind != errdefs.FailedPrecondition {
		s.Logger.Error("looking whether a container is paused", "container", c.id, "error", err)
	}
}

// noteStatus records what the supervisor says of a container that runs.
func (s *Service) noteStatus(ctx context.Context, c *container, status string) error {
	switch phase := c.record.Load().Phase(); {
	case phase == running && status == "paused":
		return s.noteFroze(ctx, c)
	case phase == paused && status == "running":
		return s.noteThawed(ctx, c)
	}
	return nil
}

// oomed tells of a kill for lack of memory when it happens, be it of the first
// process or of another. What comes after the run has ended is told already.
func (s *Service) oomed(c *container) {
	if r := c.record.Load(); r.up() {
		c.oom.Store(true)
		s.tell(r, apievents.ActionOOM, nil)
	}
}

// execEnded notes the end of a command; the shim then need not remember it.
func (s *Service) execEnded(ctx context.Context, container, id string, exit task.Exit) {
	s.execExited(id, exit)
	s.following.Go(func() {
		ctx, cancel := begun(ctx)
		defer cancel()
		err := s.Tasks.Forget(ctx, container, id)
		if err != nil && errdefs.KindOf(err) != errdefs.NotFound {
			s.Logger.Warn("forgetting a command that has ended", "container", container, "exec", id, "error", err)
		}
	})
}

// dropParked hangs up on the clients that wait for a start.
func (s *Service) dropParked() {
	for _, c := range s.index.all() {
		closeParked(c.unpark())
	}
}

var errNoTask = errors.New("the supervisor knows it no more")
