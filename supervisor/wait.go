package supervisor

import (
	"context"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// Wait answers when a process has exited.
func (s *Supervisor) Wait(ctx context.Context, request *api.WaitRequest) (*api.WaitResponse, error) {
	var p *process
	err := s.ask(func(t *table) (err error) {
		_, p, err = t.findProcess(request.Id, request.Pid)
		return err
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-p.done:
		if p.exit == nil {
			return nil, noProcess(request.Id, p.name)
		}
		return &api.WaitResponse{Exit: p.exit}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.life.Done():
		return nil, errStopping()
	}
}
