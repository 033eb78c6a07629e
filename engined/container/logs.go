package container

import (
	"context"
	"errors"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/logs"
	"github.com/engined/engined/proto/errdefs"
)

// Logs writes a container's log to w. A follower ends when the container has
// stopped and all it wrote is told.
func (s *Service) Logs(ctx context.Context, ref string, options LogsOptions, w LogWriter) (err error) {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	r := c.record.Load()
	spec, err := logSpec(r, s.logPath(c.id))
	if err != nil {
		return err
	}
	if spec == nil {
		return errdefs.NotImplemented.Errorf("configured logging driver does not support reading")
	}
	var done <-chan struct{}
	if options.Follow {
		var end func()
		done, end = s.stopped(ctx, c, endOfFollowing(r))
		defer end()
	}
	log, err := logs.Open(logs.Request{
		Driver: spec.Driver, Path: spec.Path,
		Read:       logs.Following(options.Since, options.Until, options.Tail, done),
		Timestamps: options.Timestamps,
		Details:    options.Details,
		Stdout:     options.Stdout, Stderr: options.Stderr, Framed: !r.Config.Tty,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	out, err := w.Begin(r.Config.Tty) // not before: what is written once it has begun is new to a follower
	if err != nil {
		return err
	}
	return log.Copy(ctx, out)
}

// stopped returns what is closed when a container has stopped, and what gives
// that up.
func (s *Service) stopped(ctx context.Context, c *container, condition apicontainer.WaitCondition) (<-chan struct{}, func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := c.await(condition)
	done, over := make(chan struct{}), make(chan struct{})
	go func() { // ends with the container, or when it is given up, which waits for it
		defer close(over)
		select {
		case <-ended.done:
			close(done)
		case <-ctx.Done():
		}
	}()
	return done, func() {
		cancel()
		<-over
		c.forget(ended)
	}
}

// endOfFollowing: one who follows a container that was never started waits for
// its first run; of one that has ended there is nothing to wait for.
func endOfFollowing(r *Record) apicontainer.WaitCondition {
	if r.Phase() == created {
		return apicontainer.WaitConditionNextExit
	}
	return waitNotRunning
}
