package container

import (
	"context"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/logs"
	"github.com/engined/engined/proto/errdefs"
)

// Logs writes a container's log to w. A follower ends when the container has
// stopped and all it wrote is told.
func (s *Service) Logs(ctx context.Context, ref string, options LogsOptions, w LogWriter) error {
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
	out, err := w.Begin(r.Config.Tty)
	if err != nil {
		return err
	}
	var done chan struct{}
	if options.Follow {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done = make(chan struct{})
		ended := c.await(endOfFollowing(r))
		defer c.forget(ended)
		followed := make(chan struct{})
		defer func() { cancel(); <-followed }()
		go func() {
			defer close(followed)
			select {
			case <-ended.done:
				close(done)
			case <-ctx.Done():
			}
		}()
	}
	return logs.Copy(ctx, logs.Request{
		Driver: spec.Driver, Path: spec.Path,
		Read:       logs.Following(options.Since, options.Until, options.Tail, done),
		Timestamps: options.Timestamps,
		Details:    options.Details,
		Stdout:     options.Stdout, Stderr: options.Stderr, Framed: !r.Config.Tty,
	}, out)
}

// endOfFollowing: one who follows a container that was never started waits for
// its first run; of one that has ended there is nothing to wait for.
func endOfFollowing(r *Record) apicontainer.WaitCondition {
	if r.Phase() == created {
		return apicontainer.WaitConditionNextExit
	}
	return waitNotRunning
}
