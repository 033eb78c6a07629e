package runtime

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Pause freezes every process of the container.
func (c *Container) Pause(ctx context.Context) error {
	return c.invoke(ctx, nil, "pause", c.record.ID)
}

// Unpause lets them go on.
func (c *Container) Unpause(ctx context.Context) error {
	return c.invoke(ctx, nil, "resume", c.record.ID)
}

// Paused asks the kernel whether the container is frozen.
func (c *Container) Paused() (bool, error) {
	group, err := c.cgroup()
	if err != nil {
		return false, err
	}
	return group.Frozen()
}

// Pids lists every process in the container's cgroup, in this process's pid
// namespace.
func (c *Container) Pids() ([]int, error) {
	group, err := c.cgroup()
	if err != nil {
		return nil, err
	}
	return group.Pids(true)
}

// Created asks the runtime whether the container is created and not started.
func (c *Container) Created(ctx context.Context) (bool, error) {
	said, err := c.output(ctx, nil, "state", c.record.ID)
	if err != nil {
		return false, err
	}
	var state specs.State
	if err := json.Unmarshal(said, &state); err != nil {
		return false, fmt.Errorf("reading the state of container %s: %w", c.record.ID, err)
	}
	return state.Status == specs.StateCreated, nil
}
