package container

import (
	"context"
	"errors"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/proto/errdefs"
)

const waitNotRunning = apicontainer.WaitConditionNotRunning

// waiter is somebody who wants to know when a container ends.
type waiter struct {
	condition apicontainer.WaitCondition
	done      chan apicontainer.WaitResponse // one element, once
}

// Wait registers for a container's end: when it returns, no end is missed. The
// channel gets one element unless ctx ends first.
func (s *Service) Wait(ctx context.Context, ref string, condition apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return nil, err
	}
	switch condition {
	case "":
		condition = waitNotRunning
	case waitNotRunning, apicontainer.WaitConditionNextExit, apicontainer.WaitConditionRemoved:
	default:
		return nil, errdefs.InvalidArgument.Errorf("invalid condition: %q", condition)
	}
	w := c.await(condition)
	context.AfterFunc(ctx, func() { c.forget(w) })
	return w.done, nil
}

// await registers a waiter, and serves it at once if there is nothing to wait
// for. The record is put in place before waiters are notified, both under mu or
// in this order: an exit is seen here or there.
func (c *container) await(condition apicontainer.WaitCondition) *waiter {
	w := &waiter{condition: condition, done: make(chan apicontainer.WaitResponse, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.record.Load()
	switch {
	case c.waiters == nil: // removed meanwhile
		w.done <- response(r.exitCode())
	case condition == waitNotRunning && !r.up() && r.Phase() != restarting:
		w.done <- response(r.exitCode())
	default:
		c.waiters[w] = struct{}{}
	}
	return w
}

func response(code int) apicontainer.WaitResponse {
	return apicontainer.WaitResponse{StatusCode: int64(code)}
}

// forget drops a waiter that waits no more.
func (c *container) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, w)
}

// notifyExit serves those who wait for the end of the run.
func (c *container) notifyExit(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		if w.condition != apicontainer.WaitConditionRemoved {
			w.done <- response(code)
			delete(c.waiters, w)
		}
	}
}

// notifyNotRemoved serves those who wait for a removal that failed.
func (c *container) notifyNotRemoved(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := response(c.record.Load().exitCode())
	answer.Error = &apicontainer.WaitExitError{Message: cause.Error()}
	for w := range c.waiters {
		if w.condition == apicontainer.WaitConditionRemoved {
			w.done <- answer
			delete(c.waiters, w)
		}
	}
}

// notifyRemoved serves everybody: nothing more happens to the container.
func (c *container) notifyRemoved(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		w.done <- response(code)
	}
	c.waiters = nil
}

func unlessStale(err error) error {
	if errors.Is(err, errStale) {
		return nil
	}
	return err
}
