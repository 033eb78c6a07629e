package supervisor

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// UpdateContainer pauses, resumes, or changes limits.
func (s *Supervisor) UpdateContainer(ctx context.Context, request *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	change, err := s.updateOf(request)
	if err != nil {
		return nil, err
	}
	return do(ctx, s, request.Id, exclusive, func(ctx context.Context) (*api.UpdateContainerResponse, error) {
		return &api.UpdateContainerResponse{}, change(ctx, request.Id)
	})
}

// updateOf chooses and validates. A status wins over resources.
func (s *Supervisor) updateOf(request *api.UpdateContainerRequest) (func(context.Context, string) error, error) {
	switch request.Status {
	case statusPaused:
		return s.pause, nil
	case statusRunning:
		return s.resume, nil
	case "":
	default:
		return nil, errdefs.InvalidArgument.Errorf("status: %q, expected %s or %s", request.Status, statusPaused, statusRunning)
	}
	if request.Resources == nil {
		return nil, errdefs.InvalidArgument.Errorf("status, resources: both empty, expected one of them")
	}
	resources, err := resourcesOf(request.Resources)
	return func(ctx context.Context, id string) error { return s.update(ctx, id, resources) }, err
}

// look returns container id if need, run on the loop, has nothing against it.
func (s *Supervisor) look(id string, need func(*container) error) (c *container, err error) {
	err = s.ask(func(t *table) (err error) {
		if c, err = t.find(id); err != nil {
			return err
		}
		return need(c)
	})
	return c, err
}

func (s *Supervisor) pause(ctx context.Context, id string) error {
	c, err := s.look(id, func(c *container) error { return c.needRunning(id) })
	if err != nil {
		return err
	}
	if err := c.handle.Pause(ctx); err != nil {
		return err
	}
	return s.recordPause(c)
}

func (s *Supervisor) recordPause(c *container) error {
	return s.record(&api.Event{Type: eventPause, Id: c.handle.ID()}, func(*table) { c.turn(statusRunning, statusPaused) })
}

func (s *Supervisor) resume(ctx context.Context, id string) error {
	c, err := s.look(id, func(c *container) error {
		if c.status != statusPaused {
			return errdefs.FailedPrecondition.Errorf("container %s is not paused: it is %s", id, c.status)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.handle.Unpause(ctx); err != nil {
		return err
	}
	return s.recordResume(c)
}

func (s *Supervisor) recordResume(c *container) error {
	return s.record(&api.Event{Type: eventResume, Id: c.handle.ID()}, func(*table) { c.turn(statusPaused, statusRunning) })
}

// turn changes the status unless an exit has come in between.
func (c *container) turn(from, to string) {
	if c.status == from {
		c.set(to)
	}
}

func (s *Supervisor) update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	c, err := s.look(id, func(c *container) error {
		if c.status == statusStopped {
			return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, id, "container %s is not running: it is %s", id, c.status)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.handle.Update(ctx, resources); err != nil {
		return err
	}
	return s.record(&api.Event{Type: eventUpdate, Id: id}, func(*table) {})
}
