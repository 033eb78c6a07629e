package supervisor

import (
	"context"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// Stats is not implemented yet.
func (s *Supervisor) Stats(_ context.Context, request *api.StatsRequest) (*api.StatsResponse, error) {
	if _, err := s.look(request.Id, func(*container) error { return nil }); err != nil {
		return nil, err
	}
	return nil, errdefs.NotImplemented.Errorf("stats are not implemented")
}
