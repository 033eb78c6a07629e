package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// Update changes the container's limits. What resources does not name stays.
//
// The runtime takes what `update --resources` of runc knows. Of block devices
// that is the one weight, and of the kernel's own memory nothing, without a word
// about the rest: that goes to the cgroup from here, first, since what may be
// wrong with it only the kernel knows.
func (c *Container) Update(ctx context.Context, resources *specs.LinuxResources) error {
	ours, runtimes := divide(resources)
	if ours != nil {
		if err := c.updateCgroup(ctx, ours); err != nil {
			return fmt.Errorf("updating container %s: %w", c.record.ID, err)
		}
	}
	if runtimes == nil {
		return nil
	}
	encoded, err := json.Marshal(runtimes)
	if err != nil {
		return fmt.Errorf("encoding the resources: %w", err)
	}
	return c.invoke(ctx, encoded, "update", "--resources", "-", c.record.ID)
}

// divide separates what is written to the cgroup from what the runtime is
// asked for; nil is nothing.
func divide(all *specs.LinuxResources) (ours, runtimes *specs.LinuxResources) {
	ours, runtimes = &specs.LinuxResources{}, &specs.LinuxResources{}
	*runtimes = *all
	if io := all.BlockIO; io != nil {
		devices := *io
		devices.Weight, runtimes.BlockIO = nil, nil
		if io.Weight != nil {
			runtimes.BlockIO = &specs.LinuxBlockIO{Weight: io.Weight}
		}
		if io.LeafWeight != nil || len(io.WeightDevice)+len(throttled(io)) > 0 {
			ours.BlockIO = &devices
		}
	}
	if memory := all.Memory; memory != nil && memory.KernelTCP != nil {
		rest := *memory
		rest.KernelTCP = nil
		ours.Memory, runtimes.Memory = &specs.LinuxMemory{KernelTCP: memory.KernelTCP}, nil
		if rest != (specs.LinuxMemory{}) {
			runtimes.Memory = &rest
		}
	}
	if ours.BlockIO == nil && ours.Memory == nil {
		ours = nil
	}
	if runtimes.CPU == nil && runtimes.Memory == nil && runtimes.BlockIO == nil && runtimes.Pids == nil {
		runtimes = nil
	}
	return ours, runtimes
}

func throttled(io *specs.LinuxBlockIO) (all []specs.LinuxThrottleDevice) {
	for _, list := range [][]specs.LinuxThrottleDevice{
		io.ThrottleReadBpsDevice, io.ThrottleWriteBpsDevice, io.ThrottleReadIOPSDevice, io.ThrottleWriteIOPSDevice,
	} {
		all = append(all, list...)
	}
	return all
}

func (c *Container) updateCgroup(ctx context.Context, resources *specs.LinuxResources) error {
	group, err := c.cgroup()
	if errdefs.KindOf(err) == errdefs.NotFound {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.record.ID, "%w", err)
	}
	if err == nil {
		err = notOurs(group)
	}
	if err == nil && len(group.Location().V1) == 0 {
		err = knownToV2(resources)
	}
	if err != nil {
		return err
	}
	return group.Update(ctx, resources)
}

// knownToV2 refuses what cgroup v2 has no file for.
func knownToV2(resources *specs.LinuxResources) error {
	absent := ""
	if resources.Memory != nil {
		absent = "kernelTCPMemoryLimit"
	}
	if io := resources.BlockIO; io != nil {
		if io.LeafWeight != nil {
			absent = "blkioLeafWeight"
		}
		for _, device := range io.WeightDevice {
			if device.LeafWeight != nil {
				absent = "blkioWeightDevice.leafWeight"
			}
		}
	}
	if absent == "" {
		return nil
	}
	return errdefs.NotImplemented.Errorf("resources.%s: cgroup v2 has no such limit", absent)
}

// SignalAll sends a signal to every process in the container.
func (c *Container) SignalAll(ctx context.Context, signal int) error {
	return c.invoke(ctx, nil, "kill", "--all", c.record.ID, strconv.Itoa(signal))
}
