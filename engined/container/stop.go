package container

import (
	"context"
	"syscall"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// defaultSignal is what stops a container that names no other.
const defaultSignal = syscall.SIGTERM

// Stop asks a container's process to end, and kills it if it does not in time.
func (s *Service) Stop(ctx context.Context, ref string, options StopOptions) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	release, holds, err := c.turn.join(ctx, stopping, c.id)
	if err != nil {
		return err
	}
	defer release()
	if err := allow(stopping, c.record.Load()); err != nil {
		return err
	}
	if err := s.stop(ctx, c, options); err != nil {
		return err
	}
	s.tell(c.record.Load(), apievents.ActionStop, nil)
	return s.settleAfter(ctx, c, holds)
}

// settleAfter gives back what the run had before its verb returns: whoever
// stops a container counts on its address and ports being free. A stop beside
// another waits for the turn: what is there without it may be the next run's.
func (s *Service) settleAfter(ctx context.Context, c *container, holds bool) error {
	ctx, cancel := begun(ctx)
	defer cancel()
	if !holds {
		release, err := c.turn.take(ctx, tearing, c.id)
		if err != nil {
			return err
		}
		defer release()
	}
	return s.settle(ctx, c)
}

// stop signals, waits and kills. It does so even if its client leaves, unless
// it would wait for ever.
func (s *Service) stop(ctx context.Context, c *container, options StopOptions) error {
	r := c.record.Load()
	signal, timeout, err := s.stopPlan(r, options)
	if err != nil {
		return err
	}
	ended := c.await(apicontainer.WaitConditionNotRunning)
	defer c.forget(ended)
	if err := s.signal(ctx, c, signal); err != nil {
		return err
	}
	var expired <-chan time.Time
	if timeout >= 0 {
		ctx = context.WithoutCancel(ctx)
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-ended.done:
		return nil
	case <-expired:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.kill(ctx, c, ended)
}

// killWait is how long a process may take to die of KILL: one in an
// uninterruptible sleep does not.
const killWait = 30 * time.Second

// kill kills and waits for the end.
func (s *Service) kill(ctx context.Context, c *container, ended *waiter) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
	defer cancel()
	if err := s.signal(ctx, c, syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-ended.done:
		return nil
	case <-ctx.Done():
		return errdefs.DeadlineExceeded.Errorf("container %s did not die of KILL within %v", c.id, killWait)
	}
}

// stopPlan says with which signal and how patiently to stop.
func (s *Service) stopPlan(r *Record, options StopOptions) (syscall.Signal, time.Duration, error) {
	signal, timeout := stopSignal(r), s.StopTimeout
	if options.Signal != "" {
		given, err := parseSignal(options.Signal)
		if err != nil {
			return 0, 0, err
		}
		signal = given
	}
	seconds := r.Config.StopTimeout
	if options.Timeout != nil {
		seconds = options.Timeout
	}
	if seconds != nil {
		timeout = time.Duration(*seconds) * time.Second
	}
	return signal, timeout, nil
}

func stopSignal(r *Record) syscall.Signal {
	if r.Config.StopSignal == "" {
		return defaultSignal
	}
	signal, err := parseSignal(r.Config.StopSignal)
	if err != nil { // checked at create
		return defaultSignal
	}
	return signal
}

// Restart stops a container that runs and starts it.
func (s *Service) Restart(ctx context.Context, ref string, options StopOptions) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	release, err := c.turn.take(ctx, restartng, c.id)
	if err != nil {
		return err
	}
	defer release()
	r := c.record.Load()
	if err := allow(restartng, r); err != nil {
		return err
	}
	if r.up() {
		if err := s.stop(ctx, c, options); err != nil {
			return err
		}
		s.tell(r, apievents.ActionStop, nil)
	}
	ctx, cancel := begun(ctx)
	defer cancel()
	if err := s.start(ctx, c); err != nil {
		return err
	}
	s.tell(r, apievents.ActionRestart, nil)
	return nil
}
