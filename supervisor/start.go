package supervisor

import (
	"context"
	"time"

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

func (s *Supervisor) startCreated(ctx context.Context, id string) (message *api.Container, err error) {
	c, err := s.look(id, func(c *container) error {
		if err := c.needCreated(id); err != nil {
			return err
		}
		c.init().held = true // until the start is recorded
		return nil
	})
	if err != nil {
		return nil, err
	}
	started, err := c.handle.Resume(ctx)
	if err == nil {
		message, err = s.recordStart(c, id, started)
	}
	_ = s.ask(func(*table) error { c.init().held = false; return nil })
	s.noteExit(c, runtime.Init)
	return message, err
}

// recordStart records that c's init runs and returns c as it then is.
func (s *Supervisor) recordStart(c *container, id string, started runtime.Started) (message *api.Container, err error) {
	err = s.recordAll(startOf(c, id, started, &message))
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
