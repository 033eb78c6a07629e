package supervisor

import (
	"context"
	"path/filepath"
	"time"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// CreateCheckpoint saves a running container with the runtime's means, which
// are CRIU's. With exit the container's processes end; the exit is an event.
func (s *Supervisor) CreateCheckpoint(ctx context.Context, request *api.CreateCheckpointRequest) (*api.CreateCheckpointResponse, error) {
	if request.Checkpoint == nil {
		return nil, errdefs.InvalidArgument.Errorf("checkpoint: missing")
	}
	if err := checkCheckpoint("checkpoint.name", request.Checkpoint.Name, request.CheckpointDir); err != nil {
		return nil, err
	}
	wanted := runtime.Checkpoint{
		Name: request.Checkpoint.Name, Created: time.Now(), Exit: request.Checkpoint.Exit, TCP: request.Checkpoint.Tcp,
		UnixSockets: request.Checkpoint.UnixSockets, Shell: request.Checkpoint.Shell, EmptyNS: request.Checkpoint.EmptyNS,
	}
	return do(ctx, s, request.Id, exclusive, func(ctx context.Context) (*api.CreateCheckpointResponse, error) {
		c, err := s.look(request.Id, func(c *container) error { return c.needRunning(request.Id) })
		if err != nil {
			return nil, err
		}
		return &api.CreateCheckpointResponse{}, c.handle.Checkpoint(ctx, request.CheckpointDir, wanted)
	})
}

// DeleteCheckpoint removes a checkpoint of a container.
func (s *Supervisor) DeleteCheckpoint(ctx context.Context, request *api.DeleteCheckpointRequest) (*api.DeleteCheckpointResponse, error) {
	if err := checkCheckpoint("name", request.Name, request.CheckpointDir); err != nil {
		return nil, err
	}
	return do(ctx, s, request.Id, exclusive, func(context.Context) (*api.DeleteCheckpointResponse, error) {
		c, err := s.look(request.Id, anyStatus)
		if err != nil {
			return nil, err
		}
		return &api.DeleteCheckpointResponse{}, c.handle.DeleteCheckpoint(request.CheckpointDir, request.Name)
	})
}

// ListCheckpoint lists the checkpoints of a container.
func (s *Supervisor) ListCheckpoint(_ context.Context, request *api.ListCheckpointRequest) (*api.ListCheckpointResponse, error) {
	if err := checkCheckpointDir(request.CheckpointDir); err != nil {
		return nil, err
	}
	c, err := s.look(request.Id, anyStatus)
	if err != nil {
		return nil, err
	}
	found, err := c.handle.Checkpoints(request.CheckpointDir)
	if err != nil {
		return nil, err
	}
	response := &api.ListCheckpointResponse{}
	for _, one := range found {
		response.Checkpoints = append(response.Checkpoints, &api.Checkpoint{
			Name: one.Name, Exit: one.Exit, Tcp: one.TCP, UnixSockets: one.UnixSockets, Shell: one.Shell, EmptyNS: one.EmptyNS,
		})
	}
	return response, nil
}

func anyStatus(*container) error { return nil }

func checkCheckpoint(field, name, dir string) error {
	if err := checkID(field, name); err != nil {
		return err
	}
	return checkCheckpointDir(dir)
}

func checkCheckpointDir(dir string) error {
	if dir != "" && !filepath.IsAbs(dir) {
		return errdefs.InvalidArgument.Errorf("checkpointDir: %q, expected an absolute path", dir)
	}
	return nil
}

// checkRestore validates what a new container goes on from.
func checkRestore(request *api.CreateContainerRequest) error {
	if request.Checkpoint == "" {
		return nil
	}
	if request.CreateOnly {
		return errdefs.InvalidArgument.Errorf("create_only: true, expected false with a checkpoint: what is restored runs")
	}
	return checkCheckpoint("checkpoint", request.Checkpoint, request.CheckpointDir)
}
