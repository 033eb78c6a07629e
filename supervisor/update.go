package supervisor

import (
	"context"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// UpdateContainer pauses, resumes, or changes limits.
func (s *Supervisor) UpdateContainer(ctx context.Context, request *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	change, err := s.updateOf(request)
	if err != nil {
		return nil, err
	}
	return do(ctx, s, request.Id, exclusive, func(ctx context.Context) (*api.UpdateContainerResponse, error) {
		return &api.UpdateContainerResponse{}, change(ctx, request.Id)
	})
}

// updateOf chooses and validates. A status wins over resources.
func (s *Supervisor) updateOf(request *api.UpdateContainerRequest) (func(context.Context, string) error, error) {
	switch request.Status {
	case statusPaused:
		return s.pause, nil
	case statusRunning:
		return s.resume, nil
	case "":
	default:
		return nil, errdefs.InvalidArgument.Errorf("status: %q, expected %s or %s", request.Status, statusPaused, statusRunning)
	}
	if request.Resources == nil {
		return nil, errdefs.InvalidArgument.Errorf("status, resources: both empty, expected one of them")
	}
	resources, err := resourcesOf(request.Resources)
	return func(ctx context.Context, id string) error { return s.update(ctx, id, resources) }, err
}

// look returns container id if need, run on the loop, has nothing against it.
func (s *Supervisor) look(id string, need func(*container) error) (c *container, err error) {
	err = s.ask(func(t *table) (err error) {
		if c, err = t.find(id); err != nil {
			return err
		}
		return need(c)
	})
	return c, err
}

func (s *Supervisor) pause(ctx context.Context, id string) error {
	c, err := s.look(id, func(c *container) error { return c.needRunning(id) })
	if err != nil {
		return err
	}
	if err := c.handle.Pause(ctx); err != nil {
		return err
	}
	return s.record(&api.Event{Type: eventPause, Id: id}, func(*table) { c.turn(statusRunning, statusPaused) })
}

func (s *Supervisor) resume(ctx context.Context, id string) error {
	c, err := s.look(id, func(c *container) error {
		if c.status != statusPaused {
			return errdefs.FailedPrecondition.Errorf("container %s is not paused: it is %s", id, c.status)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.handle.Unpause(ctx); err != nil {
		return err
	}
	return s.record(&api.Event{Type: eventResume, Id: id}, func(*table) { c.turn(statusPaused, statusRunning) })
}

// turn changes the status unless an exit has come in between.
func (c *container) turn(from, to string) {
	if c.status == from {
		c.set(to)
	}
}

func (s *Supervisor) update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	c, err := s.look(id, func(c *container) error {
		if c.status == statusStopped {
			return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, id, "container %s is not running: it is %s", id, c.status)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.handle.Update(ctx, resources); err != nil {
		return err
	}
	return s.record(&api.Event{Type: eventUpdate, Id: id}, func(*table) {})
}

// resourcesOf turns a request into the OCI's resources. A zero leaves the
// value as it is, so it is not in the result.
func resourcesOf(request *api.UpdateResource) (*specs.LinuxResources, error) {
	if err := checkResources(request); err != nil {
		return nil, err
	}
	resources := &specs.LinuxResources{}
	if request.CpuShares != 0 || request.CpuPeriod != 0 || request.CpuQuota != 0 || request.CpusetCpus != "" || request.CpusetMems != "" {
		resources.CPU = &specs.LinuxCPU{
			Shares: unlessZero(request.CpuShares), Period: unlessZero(request.CpuPeriod), Quota: unlessZero(int64(request.CpuQuota)),
			Cpus: request.CpusetCpus, Mems: request.CpusetMems,
		}
	}
	if request.MemoryLimit != 0 || request.MemorySwap != 0 || request.MemoryReservation != 0 || request.KernelMemoryLimit != 0 || request.KernelTCPMemoryLimit != 0 {
		resources.Memory = &specs.LinuxMemory{
			Limit: unlessZero(int64(request.MemoryLimit)), Swap: unlessZero(int64(request.MemorySwap)), // 2^64-1 becomes -1: unlimited
			Reservation: unlessZero(int64(request.MemoryReservation)),
			Kernel:      unlessZero(int64(request.KernelMemoryLimit)), KernelTCP: unlessZero(int64(request.KernelTCPMemoryLimit)),
		}
	}
	if request.BlkioWeight != 0 {
		resources.BlockIO = &specs.LinuxBlockIO{Weight: unlessZero(uint16(request.BlkioWeight))}
	}
	if request.PidsLimit != 0 {
		resources.Pids = &specs.LinuxPids{Limit: &request.PidsLimit}
	}
	return resources, nil
}

func unlessZero[Number int64 | uint64 | uint16](value Number) *Number {
	if value == 0 {
		return nil
	}
	return &value
}

func checkResources(request *api.UpdateResource) error {
	if request.BlkioWeight != 0 && (request.BlkioWeight < 10 || request.BlkioWeight > 1000) {
		return errdefs.InvalidArgument.Errorf("resources.blkioWeight: %d, expected 10 to 1000", request.BlkioWeight)
	}
	for _, bounded := range []struct {
		field string
		value uint64
	}{
		{"cpuQuota", request.CpuQuota}, {"memoryLimit", request.MemoryLimit}, {"memoryReservation", request.MemoryReservation},
	} {
		if bounded.value > math.MaxInt64 {
			return errdefs.InvalidArgument.Errorf("resources.%s: %d, expected at most %d", bounded.field, bounded.value, int64(math.MaxInt64))
		}
	}
	// runc's update takes only the weight and passes the rest over in silence.
	for _, absent := range []struct {
		field string
		given bool
	}{
		{"blkioLeafWeight", request.BlkioLeafWeight != 0},
		{"blkioWeightDevice", len(request.BlkioWeightDevice) > 0},
		{"blkioThrottleReadBpsDevice", len(request.BlkioThrottleReadBpsDevice) > 0},
		{"blkioThrottleWriteBpsDevice", len(request.BlkioThrottleWriteBpsDevice) > 0},
		{"blkioThrottleReadIopsDevice", len(request.BlkioThrottleReadIopsDevice) > 0},
		{"blkioThrottleWriteIopsDevice", len(request.BlkioThrottleWriteIopsDevice) > 0},
	} {
		if absent.given {
			return errdefs.NotImplemented.Errorf("resources.%s: changing it is not implemented", absent.field)
		}
	}
	return nil
}
