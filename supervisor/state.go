package supervisor

import (
	"cmp"
	"context"
	"slices"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// State answers from the table. Only the pids of a single container are asked
// of the kernel, outside of the loop.
func (s *Supervisor) State(_ context.Context, request *api.StateRequest) (*api.StateResponse, error) {
	response, c, err := s.snapshot(request.Id)
	if err != nil || c == nil || c.handle == nil {
		return response, err
	}
	pids, err := c.handle.Pids()
	if err != nil && errdefs.KindOf(err) != errdefs.NotFound {
		s.logger.Warn("listing a container's processes", "container", request.Id, "error", err)
	}
	if len(pids) > 0 {
		message := clone(response.Containers[0])
		for _, pid := range pids {
			message.Pids = append(message.Pids, uint32(pid))
		}
		response.Containers[0] = message
	}
	return response, nil
}

// snapshot returns what the table says of container id, or of all.
func (s *Supervisor) snapshot(id string) (response *api.StateResponse, c *container, err error) {
	response = &api.StateResponse{Machine: s.machine}
	err = s.ask(func(t *table) (err error) {
		response.Seq = t.seq
		if id == "" {
			response.Containers = t.all()
			return nil
		}
		if c, err = t.find(id); err != nil {
			return err
		}
		response.Containers = []*api.Container{c.view()}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(response.Containers, func(a, b *api.Container) int { return cmp.Compare(a.Id, b.Id) })
	return response, c, nil
}

// GetServerVersion says which build answers.
func (s *Supervisor) GetServerVersion(context.Context, *api.GetServerVersionRequest) (*api.GetServerVersionResponse, error) {
	major, minor, patch := parseVersion(s.config.Version)
	return &api.GetServerVersionResponse{Major: major, Minor: minor, Patch: patch, Revision: s.config.Revision}, nil
}
