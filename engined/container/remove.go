package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// Remove removes a container, with force also one that runs.
func (s *Service) Remove(ctx context.Context, ref string, options RemoveOptions) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	v := removal
	if options.Force {
		v = forced
		if err := s.killFirst(ctx, c); err != nil {
			return err
		}
	}
	return s.remove(ctx, c, v, options.Volumes)
}

// killFirst kills what runs without waiting for the turn: a stop with much
// patience may have it.
func (s *Service) killFirst(ctx context.Context, c *container) error {
	if err := c.turn.pass(ctx, killing, c.id); err != nil {
		return err
	}
	if !c.record.Load().up() {
		return nil
	}
	ended := c.await(waitNotRunning)
	defer c.forget(ended)
	return s.kill(ctx, c, ended)
}

// remove takes the turn and removes. With verb forced it kills what was
// started again meanwhile.
func (s *Service) remove(ctx context.Context, c *container, v verb, volumes bool) error {
	release, err := c.turn.take(ctx, v, c.id)
	if err != nil {
		return err
	}
	defer release()
	r := c.record.Load()
	if _, err := s.index.find(c.id); err != nil {
		return removedMeanwhile(v, err)
	}
	if err := allow(v, r); err != nil {
		return err
	}
	ctx, cancel := begun(ctx)
	defer cancel()
	if r.up() {
		ended := c.await(waitNotRunning)
		defer c.forget(ended)
		if err := s.kill(ctx, c, ended); err != nil {
			return err
		}
	}
	return s.removeNow(ctx, c, volumes)
}

// removeNow notes first what was asked for, so that engined's next start
// finishes that removal and no other.
func (s *Service) removeNow(ctx context.Context, c *container, volumes bool) error {
	if err := s.change(ctx, c, func(r *Record) error { return r.applyRemoveBegan(time.Now().UTC(), volumes) }); err != nil {
		return err
	}
	return s.finishRemove(ctx, c, volumes)
}

// removedMeanwhile: one who removes by itself has what it wanted.
func removedMeanwhile(v verb, err error) error {
	if v == autoRemove {
		return nil
	}
	return err
}

// finishRemove gives everything back, the record last. Each step may have been
// done before, by an engined that died. If one fails the container is dead and
// can be removed again.
func (s *Service) finishRemove(ctx context.Context, c *container, volumes bool) error {
	if err := s.giveBack(ctx, c, volumes); err != nil {
		err = fmt.Errorf("removing container %s: %w", c.id, errors.Join(err, s.noteRemoveFailed(ctx, c, err)))
		c.notifyNotRemoved(err)
		return err
	}
	r := c.record.Load()
	s.index.remove(c)
	s.execs.containerRemoved(c.id)
	closeParked(c.unpark())
	s.tell(r, apievents.ActionDestroy, nil)
	c.notifyRemoved(r.exitCode())
	return nil
}

func (s *Service) noteRemoveFailed(ctx context.Context, c *container, cause error) error {
	ctx, cancel := noting(ctx)
	defer cancel()
	failure := Failure{Time: time.Now().UTC(), Text: cause.Error()}
	return s.change(ctx, c, func(r *Record) error { return r.applyRemoveFailed(failure) })
}

// removeItself removes a container that was asked to remove itself.
func (s *Service) removeItself(ctx context.Context, c *container) error {
	err := s.remove(ctx, c, autoRemove, true)
	if err != nil && !c.record.Load().up() { // started again, it is removed after that run
		c.notifyNotRemoved(err)
	}
	return err
}

func (s *Service) giveBack(ctx context.Context, c *container, volumes bool) error {
	r := c.record.Load()
	if err := s.settle(ctx, c); err != nil {
		return err
	}
	if err := s.Layers.Remove(ctx, c.id); err != nil && errdefs.KindOf(err) != errdefs.NotFound {
		return err
	}
	if err := s.Images.Release(ctx, owner(c.id)); err != nil {
		return err
	}
	if volumes {
		if err := s.removeAnonymous(r); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.dataDir(c.id)); err != nil {
		return err
	}
	// Deleting a big volume may have used up the verb's time.
	ctx, cancel := noting(ctx)
	defer cancel()
	return s.rows.remove(ctx, c.id)
}
