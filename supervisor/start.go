package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// startTask is a container to be started by one of the workers, which bound how
// many start at the same time.
type startTask struct {
	recipe runtime.Recipe
	done   chan<- startResult
}

type startResult struct {
	handle  *runtime.Container
	started runtime.Started
	err     error
}

// worker starts containers.
func (s *Supervisor) worker() {
	for {
		select {
		case task := <-s.startTasks:
			task.done <- s.startOne(task.recipe)
		case <-s.life.Done():
			return
		}
	}
}

func (s *Supervisor) startOne(recipe runtime.Recipe) (r startResult) {
	if workers := s.config.Workers; s.metrics.busy.Add(1) > int64(max(workers/2, 1)) {
		s.burst.begin(workers)
	}
	began := time.Now()
	defer func() {
		s.metrics.busy.Add(-1)
		s.metrics.noteStart(time.Since(began), r.err)
	}()
	defer s.caught(&r.err)
	r.handle, r.started, r.err = s.host.Create(s.life, recipe)
	return r
}

// startWithWorker waits for a worker and its result.
func (s *Supervisor) startWithWorker(recipe runtime.Recipe) (*runtime.Container, runtime.Started, error) {
	done := make(chan startResult, 1)
	s.metrics.waiting.Add(1)
	select {
	case s.startTasks <- startTask{recipe, done}:
		s.metrics.waiting.Add(-1)
	case <-s.life.Done():
		return nil, runtime.Started{}, errStopping()
	}
	r := <-done
	return r.handle, r.started, r.err
}

// StartContainer starts a container that was only created.
func (s *Supervisor) StartContainer(ctx context.Context, request *api.StartContainerRequest) (*api.StartContainerResponse, error) {
	return do(ctx, s, request.Id, exclusive, func(ctx context.Context) (*api.StartContainerResponse, error) {
		message, err := s.startCreated(ctx, request.Id)
		if err != nil {
			return nil, err
		}
		return &api.StartContainerResponse{Container: message}, nil
	})
}

func (s *Supervisor) startCreated(ctx context.Context, id string) (*api.Container, error) {
	c, err := s.look(id, func(c *container) error {
		if err := c.needCreated(id); err != nil {
			return err
		}
		if c.init().held {
			return errdefs.Unavailable.Coded(errdefs.ShimStuck, id, "container %s is being started, and its shim has not answered yet", id)
		}
		c.init().held = true // until it is known whether it runs
		return nil
	})
	if err != nil {
		return nil, err
	}
	started, late, err := c.handle.Resume(ctx)
	if late != nil {
		s.own.Go(func() { s.startLate(c, late) })
		return nil, err
	}
	return s.settleStart(ctx, c, started, err)
}

// startLate waits for the answer to a start that has taken longer than its client was
// to wait.
func (s *Supervisor) startLate(c *container, late <-chan runtime.Resumption) {
	answer := <-late
	if s.life.Err() != nil {
		return // the next supervisor asks the runtime
	}
	s.queues.put(c.handle.ID(), exclusive, func() {
		if !s.isCreated(c) {
			return
		}
		if _, err := s.settleStart(s.life, c, answer.Started, answer.Err); err != nil {
			s.logger.Warn("a start that took too long has failed", "container", c.handle.ID(), "error", err)
		}
	})
}

// settleStart records a start by the shim's answer to it, then the exit that may have
// come first.
func (s *Supervisor) settleStart(ctx context.Context, c *container, started runtime.Started, err error) (message *api.Container, _ error) {
	if errdefs.CodeOf(err) == errdefs.AlreadyStarted {
		if found := s.startedAlready(ctx, c); found != nil {
			started, err = *found, nil
		}
	}
	if err == nil {
		message, err = s.recordStart(c, c.handle.ID(), started)
	}
	s.release(c)
	return message, err
}

// startedAlready returns what a start has come to that the shim says has been asked of
// it already, nil if that is not done or cannot be found out.
func (s *Supervisor) startedAlready(ctx context.Context, c *container) *runtime.Started {
	created, err := c.handle.Created(ctx)
	if err == nil && created {
		return nil // on its way
	}
	found, readErr := c.handle.Process(runtime.Init)
	if err = errors.Join(err, readErr); err != nil {
		s.logger.Warn("asking whether a container has been started", "container", c.handle.ID(), "error", err)
		return nil
	}
	return found.Started
}

// release lets init's exit be recorded, which has waited for its start.
func (s *Supervisor) release(c *container) {
	_ = s.ask(func(*table) error { c.init().held = false; return nil })
	s.noteExit(c, runtime.Init)
}

// isCreated reports whether c is there still and waits for its start.
func (s *Supervisor) isCreated(c *container) (is bool) {
	_ = s.ask(func(t *table) error {
		is = t.has(c) && c.status == statusCreated
		return nil
	})
	return is
}

// adoptResumed records the start of a container that is taken for created, if the
// shim has replaced its started.json since: whoever asked for that has not heard.
func (s *Supervisor) adoptResumed(c *container) {
	var seen time.Time
	_ = s.ask(func(*table) error {
		if init := c.init(); c.status == statusCreated && !init.held {
			seen = init.message.StartedAt.AsTime()
		}
		return nil
	})
	if seen.IsZero() {
		return
	}
	found, err := c.handle.Process(runtime.Init)
	if err != nil || found.Started == nil || !found.Started.Time.After(seen) {
		return
	}
	_, _ = s.recordStart(c, c.handle.ID(), *found.Started) // else stopping
}

// recordStart records that c's init runs and returns c as it then is.
func (s *Supervisor) recordStart(c *container, id string, started runtime.Started) (message *api.Container, err error) {
	err = s.recordAll(startOf(c, id, started, &message))
	if err == nil && message == nil { // recorded before
		err = s.ask(func(*table) error { message = c.view(); return nil })
	}
	return message, err
}

// startOf is the step that c's init runs. Message is set to c as it then is.
func startOf(c *container, id string, started runtime.Started, message **api.Container) step {
	event := &api.Event{Type: eventStartContainer, Id: id, Pid: runtime.Init, SystemPid: uint32(started.Pid)}
	return step{event, func(*table) {
		init := c.init()
		c.started(init, started)
		if init.exit == nil {
			c.set(statusRunning)
		}
		*message = c.view()
	}}
}
