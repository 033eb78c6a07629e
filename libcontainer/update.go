package libcontainer

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// Update changes limits of a container that is not stopped and writes them to
// its copy of the config. Fields of changes that are nil or zero stay, save a
// limit of 0 processes; device rules are not updated, as in runc.
func Update(ctx context.Context, c *Container, changes *specs.LinuxResources) error {
	spec, err := c.runningSpec()
	if err != nil {
		return err
	}
	if spec.Linux == nil {
		spec.Linux = &specs.Linux{}
	}
	if spec.Linux.Resources == nil {
		spec.Linux.Resources = &specs.LinuxResources{}
	}
	if err := c.cgroup().Update(ctx, merge(spec.Linux.Resources, changes)); err != nil {
		return err
	}
	return c.saveSpec(spec)
}

// UpdateRdt changes the cache's and the memory bandwidth's schema of a container
// that has some: one that has not is in no group of its own. "" stays.
func UpdateRdt(c *Container, l3Cache, bandwidth string) error {
	spec, err := c.runningSpec()
	if err != nil {
		return err
	}
	if c.State.Resctrl.Dir == "" || spec.Linux == nil || spec.Linux.IntelRdt == nil {
		return errdefs.FailedPrecondition.Errorf("Intel RDT: the container was made without linux.intelRdt")
	}
	if err := c.State.Resctrl.Change(&specs.LinuxIntelRdt{L3CacheSchema: l3Cache, MemBwSchema: bandwidth}); err != nil {
		return err
	}
	rdt := spec.Linux.IntelRdt
	rdt.L3CacheSchema = cmp.Or(l3Cache, rdt.L3CacheSchema)
	rdt.MemBwSchema = cmp.Or(bandwidth, rdt.MemBwSchema)
	return c.saveSpec(spec)
}

// runningSpec is the spec of a container that is not stopped.
func (c *Container) runningSpec() (*specs.Spec, error) {
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	if status == Stopped {
		return nil, errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "container not running")
	}
	return c.Spec()
}

func (c *Container) saveSpec(spec *specs.Spec) error {
	config, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(c.Dir(), ConfigFile), config); err != nil {
		return fmt.Errorf("saving the changed limits: %w", err)
	}
	return nil
}

// merge puts changes into r and returns the parts of r that they touch. Parts
// are written whole: the kernel takes a quota together with its period, and
// swap together with memory.
func merge(r, changes *specs.LinuxResources) *specs.LinuxResources {
	touched := &specs.LinuxResources{}
	if changes.Memory != nil {
		r.Memory = part(r.Memory)
		mergeMemory(r.Memory, changes.Memory)
		touched.Memory = r.Memory
	}
	if changes.CPU != nil {
		r.CPU = part(r.CPU)
		mergeCPU(r.CPU, changes.CPU)
		touched.CPU = new(specs.LinuxCPU)
		*touched.CPU = *r.CPU
		touched.CPU.Cpus, touched.CPU.Mems = changes.CPU.Cpus, changes.CPU.Mems // else what it has now is no worse
	}
	if changes.Pids != nil && changes.Pids.Limit != nil {
		r.Pids, touched.Pids = changes.Pids, changes.Pids
	}
	if changes.BlockIO != nil {
		r.BlockIO = part(r.BlockIO)
		touched.BlockIO = &specs.LinuxBlockIO{}
		mergeBlockIO(r.BlockIO, changes.BlockIO, touched.BlockIO)
	}
	if len(changes.Unified) > 0 {
		if r.Unified == nil {
			r.Unified = make(map[string]string)
		}
		for file, text := range changes.Unified {
			r.Unified[file] = text
		}
		touched.Unified = changes.Unified
	}
	return touched
}

func part[T any](p *T) *T {
	if p == nil {
		return new(T)
	}
	return p
}

func mergeMemory(m, changes *specs.LinuxMemory) {
	set(&m.Limit, changes.Limit)
	set(&m.Swap, changes.Swap)
	swap := changes.Swap != nil && *changes.Swap != 0
	switch {
	case swap || changes.Limit == nil:
	case *changes.Limit == -1: // as in runc: swap alone cannot have a limit
		m.Swap = changes.Limit
	case changes.Swap != nil && *changes.Limit > 0:
		m.Swap = nil // the kernel's stays
	}
	set(&m.Reservation, changes.Reservation)
	m.CheckBeforeUpdate = changes.CheckBeforeUpdate
}

func mergeCPU(cpu, changes *specs.LinuxCPU) {
	set(&cpu.Shares, changes.Shares)
	set(&cpu.Quota, changes.Quota)
	set(&cpu.Period, changes.Period)
	set(&cpu.RealtimeRuntime, changes.RealtimeRuntime)
	set(&cpu.RealtimePeriod, changes.RealtimePeriod)
	if changes.Burst != nil {
		cpu.Burst = changes.Burst
	}
	if changes.Idle != nil {
		cpu.Idle = changes.Idle
	}
	if changes.Cpus != "" {
		cpu.Cpus = changes.Cpus
	}
	if changes.Mems != "" {
		cpu.Mems = changes.Mems
	}
}

// mergeBlockIO, unlike the others, has only what changed written: a device may
// be gone that had a limit.
func mergeBlockIO(b, changes, touched *specs.LinuxBlockIO) {
	set(&b.Weight, changes.Weight)
	set(&touched.Weight, changes.Weight)
	set(&b.LeafWeight, changes.LeafWeight)
	set(&touched.LeafWeight, changes.LeafWeight)
	b.WeightDevice = putDevices(b.WeightDevice, changes.WeightDevice, func(d specs.LinuxWeightDevice) [2]int64 { return [2]int64{d.Major, d.Minor} })
	touched.WeightDevice = changes.WeightDevice
	for _, list := range []struct{ to, touched, from *[]specs.LinuxThrottleDevice }{
		{&b.ThrottleReadBpsDevice, &touched.ThrottleReadBpsDevice, &changes.ThrottleReadBpsDevice},
		{&b.ThrottleWriteBpsDevice, &touched.ThrottleWriteBpsDevice, &changes.ThrottleWriteBpsDevice},
		{&b.ThrottleReadIOPSDevice, &touched.ThrottleReadIOPSDevice, &changes.ThrottleReadIOPSDevice},
		{&b.ThrottleWriteIOPSDevice, &touched.ThrottleWriteIOPSDevice, &changes.ThrottleWriteIOPSDevice},
	} {
		*list.to = putDevices(*list.to, *list.from, func(d specs.LinuxThrottleDevice) [2]int64 { return [2]int64{d.Major, d.Minor} })
		*list.touched = *list.from
	}
}

// putDevices replaces the entries of devices that changes names, and appends
// the others.
func putDevices[T any](list, changes []T, number func(T) [2]int64) []T {
	for _, change := range changes {
		at := slices.IndexFunc(list, func(one T) bool { return number(one) == number(change) })
		if at < 0 {
			list = append(list, change)
		} else {
			list[at] = change
		}
	}
	return list
}

// set replaces *to unless the change is absent or zero.
func set[T int64 | uint64 | uint16](to **T, change *T) {
	if change != nil && *change != 0 {
		*to = change
	}
}
