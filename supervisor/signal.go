package supervisor

import (
	"context"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// maxSignal is the last real-time signal, signal(7).
const maxSignal = 64

// Signal sends a signal to one process of a container, or to all.
func (s *Supervisor) Signal(ctx context.Context, request *api.SignalRequest) (*api.SignalResponse, error) {
	if request.Signal < 1 || request.Signal > maxSignal {
		return nil, errdefs.InvalidArgument.Errorf("signal: %d, expected 1 to %d", request.Signal, maxSignal)
	}
	c, p, err := s.liveProcess(request.Id, request.Pid)
	if err != nil {
		return nil, err
	}
	if request.All {
		return &api.SignalResponse{}, c.handle.SignalAll(ctx, int(request.Signal))
	}
	return &api.SignalResponse{}, c.handle.Signal(ctx, p.name, int(request.Signal))
}

// liveProcess returns a process that has started and not exited.
func (s *Supervisor) liveProcess(id, name string) (c *container, p *process, err error) {
	err = s.ask(func(t *table) (err error) {
		if c, p, err = t.findProcess(id, name); err != nil {
			return err
		}
		if p.exit != nil || p.starting {
			return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, p.name, "process %s of container %s is not running", p.name, id)
		}
		return nil
	})
	return c, p, err
}

// UpdateProcess closes a process's standard input or resizes its terminal.
func (s *Supervisor) UpdateProcess(ctx context.Context, request *api.UpdateProcessRequest) (*api.UpdateProcessResponse, error) {
	width, height, err := sizeOf(request.Width, request.Height)
	if err != nil {
		return nil, err
	}
	c, p, err := s.liveProcess(request.Id, request.Pid)
	if err != nil {
		return nil, err
	}
	if request.CloseStdin {
		if err := c.handle.CloseStdin(ctx, p.name); err != nil {
			return nil, err
		}
	}
	if width != 0 || height != 0 {
		if err := c.handle.Resize(ctx, p.name, width, height); err != nil {
			return nil, err
		}
	}
	return &api.UpdateProcessResponse{}, nil
}
