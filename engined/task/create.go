package task

import (
	"context"

	"github.com/engined/engined/proto/shim"
	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

// CreateRequest says which bundle to run and how.
type CreateRequest struct {
	ID          string
	Bundle      string // absolute path
	Runtime     string // name or path, "": the supervisor's own choice
	Log         *shim.Log
	OpenStdin   bool
	StdinOnce   bool
	AwaitAttach int    // Attach calls that will follow at once
	Width       uint16 // terminal's first size, 0: unset
	Height      uint16
}

// Create creates a container and starts it. It returns when its process runs,
// or the runtime's own error, after which nothing is left of it.
func (c *Client) Create(ctx context.Context, req CreateRequest) (Container, error) {
	answer, err := c.rpc.CreateContainer(ctx, &supervisor.CreateContainerRequest{
		Id:          req.ID,
		BundlePath:  req.Bundle,
		Runtime:     req.Runtime,
		Log:         toLogSpec(req.Log),
		OpenStdin:   req.OpenStdin,
		StdinOnce:   req.StdinOnce,
		AwaitAttach: uint32(req.AwaitAttach),
		Width:       uint32(req.Width),
		Height:      uint32(req.Height),
	}, wait)
	if err != nil {
		return Container{}, err
	}
	return fromContainer(answer.GetContainer()), nil
}

func toLogSpec(log *shim.Log) *supervisor.LogSpec {
	if log == nil {
		return nil
	}
	return &supervisor.LogSpec{
		Driver:   log.Driver,
		Path:     log.Path,
		MaxSize:  log.MaxSize,
		MaxFile:  uint32(log.MaxFile),
		Compress: log.Compress,
		Attrs:    log.Attrs,
	}
}

// Delete ends a stopped container's shim and forgets the container; with force
// a running one is killed first.
func (c *Client) Delete(ctx context.Context, id string, force bool) error {
	_, err := c.rpc.DeleteContainer(ctx, &supervisor.DeleteContainerRequest{Id: id, Force: force}, wait)
	return err
}
