package container

import (
	"context"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

// Pause freezes all of a container's processes.
func (s *Service) Pause(ctx context.Context, ref string) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	release, err := c.enter(ctx, pausing)
	if err != nil {
		return err
	}
	defer release()
	return s.freeze(ctx, c)
}

func (s *Service) freeze(ctx context.Context, c *container) error {
	ctx, cancel := begun(ctx)
	defer cancel()
	if err := s.Tasks.Pause(ctx, c.id); err != nil {
		return err
	}
	return s.noteFroze(ctx, c)
}

func (s *Service) noteFroze(ctx context.Context, c *container) error {
	err := s.change(ctx, c, func(r *Record) error {
		if r.Phase() == paused {
			return errStale
		}
		return r.applyFroze(time.Now().UTC())
	})
	if err == nil {
		s.tell(c.record.Load(), apievents.ActionPause, nil)
	}
	return unlessStale(err)
}

// Unpause lets them go on.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	release, err := c.enter(ctx, unpausing)
	if err != nil {
		return err
	}
	defer release()
	return s.thaw(ctx, c)
}

// thaw lets a container go on. What others made of it meanwhile is no error.
func (s *Service) thaw(ctx context.Context, c *container) error {
	ctx, cancel := begun(ctx)
	defer cancel()
	if err := s.Tasks.Resume(ctx, c.id); err != nil {
		return err
	}
	return s.noteThawed(ctx, c)
}

func (s *Service) noteThawed(ctx context.Context, c *container) error {
	err := s.change(ctx, c, func(r *Record) error {
		if r.Phase() != paused {
			return errStale
		}
		return r.applyThawed()
	})
	if err == nil {
		s.tell(c.record.Load(), apievents.ActionUnPause, nil)
	}
	return unlessStale(err)
}
