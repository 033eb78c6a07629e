package supervisor

import (
	"context"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

var errNoCheckpoints = errdefs.NotImplemented.Errorf("checkpoints are not implemented")

// CreateCheckpoint is not implemented yet.
func (s *Supervisor) CreateCheckpoint(context.Context, *api.CreateCheckpointRequest) (*api.CreateCheckpointResponse, error) {
	return nil, errNoCheckpoints
}

// DeleteCheckpoint is not implemented yet.
func (s *Supervisor) DeleteCheckpoint(context.Context, *api.DeleteCheckpointRequest) (*api.DeleteCheckpointResponse, error) {
	return nil, errNoCheckpoints
}

// ListCheckpoint is not implemented yet.
func (s *Supervisor) ListCheckpoint(context.Context, *api.ListCheckpointRequest) (*api.ListCheckpointResponse, error) {
	return nil, errNoCheckpoints
}
