package supervisor

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// DeleteContainer removes a container, or forgets one of its exited processes.
func (s *Supervisor) DeleteContainer(ctx context.Context, request *api.DeleteContainerRequest) (*api.DeleteContainerResponse, error) {
	if request.Pid != "" && request.Pid != runtime.Init {
		return do(ctx, s, request.Id, shared, func(ctx context.Context) (*api.DeleteContainerResponse, error) {
			return s.deleteProcess(ctx, request.Id, request.Pid)
		})
	}
	return do(ctx, s, request.Id, exclusive, func(ctx context.Context) (*api.DeleteContainerResponse, error) {
		return s.delete(ctx, request.Id, request.Force)
	})
}

func (s *Supervisor) deleteProcess(ctx context.Context, id, name string) (*api.DeleteContainerResponse, error) {
	var c *container
	var p *process
	err := s.ask(func(t *table) (err error) {
		c, p, err = t.findProcess(id, name)
		switch {
		case err != nil:
			return err
		case p.exit == nil:
			return errdefs.FailedPrecondition.Coded(errdefs.Running, name, "process %s of container %s has not exited", name, id)
		case p.leaving:
			return errdefs.Aborted.Errorf("process %s of container %s is being forgotten already", name, id)
		}
		p.leaving = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteContainerResponse{Exit: p.exit}, s.forget(ctx, c, p)
}

// forget gives back what is kept of an exited process.
// The caller has marked it as leaving: another may have its name as soon as it is gone.
func (s *Supervisor) forget(ctx context.Context, c *container, p *process) error {
	if err := c.handle.Forget(ctx, p.name); err != nil {
		_ = s.ask(func(*table) error { p.leaving = false; return nil })
		return err
	}
	failpoint.At("supervisor-process-forgotten")
	return s.record(&api.Event{Type: eventForget, Id: c.handle.ID(), Pid: p.name}, func(*table) { c.drop(p.name) })
}

func (s *Supervisor) delete(ctx context.Context, id string, force bool) (*api.DeleteContainerResponse, error) {
	var c *container
	var init *process
	status := ""
	err := s.ask(func(t *table) (err error) { c, init, err = t.findProcess(id, runtime.Init); return err })
	if err == nil {
		s.release(c) // of a start that is late it is known now whether it has come
		err = s.ask(func(*table) error {
			status = c.status
			if (status == statusRunning || status == statusPaused) && !force {
				return errdefs.FailedPrecondition.Coded(errdefs.Running, id, "container %s is %s: stop it first or delete by force", id, status)
			}
			return nil
		})
	}
	if errdefs.CodeOf(err) == errdefs.NoSuchContainer && isID(id) {
		if failed := s.host.Clear(ctx, id); failed != nil { // there is something of it after all
			return nil, failed
		}
	}
	if err != nil {
		return nil, err
	}
	remove := c.handle.Dismiss
	if force {
		remove = c.handle.End
	}
	if status != statusStopped && s.kill(ctx, c, init, status) != nil && force {
		remove = c.handle.Raze
	}
	if err := s.removeContainer(ctx, c, remove); err != nil {
		return nil, err
	}
	failpoint.At("supervisor-container-removed")
	err = s.record(&api.Event{Type: eventDelete, Id: id}, func(t *table) { delete(t.containers, id) })
	return &api.DeleteContainerResponse{Exit: init.exit}, err
}

// kill ends init and waits for its exit to be recorded. What it does not
// achieve the removal does.
func (s *Supervisor) kill(ctx context.Context, c *container, init *process, status string) error {
	err := c.handle.Signal(ctx, runtime.Init, int(unix.SIGKILL))
	if err == nil && status == statusPaused { // a frozen process dies when it thaws
		err = c.handle.Unpause(ctx)
	}
	if errdefs.CodeOf(err) == errdefs.NotRunning { // its exit is on the way
		err = nil
	}
	if err != nil {
		s.logger.Warn("killing a container before its removal", "container", c.handle.ID(), "error", err)
		return err
	}
	s.awaitExit(ctx, init, s.host.Limits.Shim)
	return nil
}

// removeContainer removes what shim, runtime and state directory hold, after
// the exits in it are recorded.
func (s *Supervisor) removeContainer(ctx context.Context, c *container, remove func(context.Context) error) error {
	if err := remove(ctx); err != nil {
		return fmt.Errorf("deleting container %s: %w", c.handle.ID(), err)
	}
	s.finish(c, "the container was deleted")
	if len(s.unfinished(c)) > 0 {
		return errStopping()
	}
	return c.handle.Remove()
}
