package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Update changes the container's limits. What resources does not name stays.
func (c *Container) Update(ctx context.Context, resources *specs.LinuxResources) error {
	encoded, err := json.Marshal(resources)
	if err != nil {
		return fmt.Errorf("encoding the resources: %w", err)
	}
	return c.invoke(ctx, encoded, "update", "--resources", "-", c.record.ID)
}

// SignalAll sends a signal to every process in the container.
func (c *Container) SignalAll(ctx context.Context, signal int) error {
	return c.invoke(ctx, nil, "kill", "--all", c.record.ID, strconv.Itoa(signal))
}
