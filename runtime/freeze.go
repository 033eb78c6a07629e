package runtime

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

// Pause freezes every process of the container. It asks the kernel, not the
// runtime, which would do no more and take a process start for it.
func (c *Container) Pause(ctx context.Context) error {
	return c.onCgroup(ctx, "pausing", func(ctx context.Context, group *cgroup.Cgroup) error { return group.Freeze(ctx) })
}

// Unpause lets them go on.
func (c *Container) Unpause(ctx context.Context) error {
	return c.onCgroup(ctx, "resuming", func(ctx context.Context, group *cgroup.Cgroup) error { return group.Thaw(ctx) })
}

func (c *Container) onCgroup(ctx context.Context, what string, act func(context.Context, *cgroup.Cgroup) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.host.Limits.Runtime)
	defer cancel()
	group, err := c.cgroup()
	if errdefs.KindOf(err) == errdefs.NotFound {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.record.ID, "%s container %s: %w", what, c.record.ID, err)
	}
	if err == nil {
		err = notOurs(group)
	}
	if err == nil {
		err = act(ctx, group)
	}
	failpoint.At("runtime-frozen-or-thawed")
	if err != nil {
		return fmt.Errorf("%s container %s: %w", what, c.record.ID, err)
	}
	return nil
}

// Paused asks the kernel whether the container is frozen.
func (c *Container) Paused() (bool, error) {
	group, err := c.cgroup()
	if err != nil {
		return false, err
	}
	return group.Frozen()
}

// Created asks the runtime whether the container is created and not started.
func (c *Container) Created(ctx context.Context) (bool, error) {
	said, err := c.output(ctx, c.host.Limits.Runtime, nil, "state", c.record.ID)
	if err != nil {
		return false, err
	}
	var state specs.State
	if err := json.Unmarshal(said, &state); err != nil {
		return false, fmt.Errorf("reading the state of container %s: %w", c.record.ID, err)
	}
	return state.Status == specs.StateCreated, nil
}
