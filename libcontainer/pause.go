package libcontainer

import (
	"context"
	"time"

	"github.com/engined/engined/proto/errdefs"
)

// freezePatience bounds the waiting for processes that sleep uninterruptibly.
const freezePatience = 10 * time.Second

// Pause stops every process of the container until Resume.
func Pause(ctx context.Context, c *Container) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != Running && status != Created {
		return errdefs.FailedPrecondition.Coded(pauseCode(status), c.ID, "container not running")
	}
	ctx, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	return c.cgroup().Freeze(ctx)
}

func pauseCode(status Status) errdefs.Code {
	if status == Paused {
		return errdefs.Paused
	}
	return errdefs.NotRunning
}

// Resume lets a paused container's processes go on.
func Resume(ctx context.Context, c *Container) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != Paused {
		return errdefs.FailedPrecondition.Errorf("container not paused")
	}
	return c.cgroup().Thaw(ctx)
}
