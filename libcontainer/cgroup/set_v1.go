package cgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// updateV1 writes r's limits, one controller of those wanted after another.
func (c *Cgroup) updateV1(r *specs.LinuxResources, wanted func(controller string) bool) error {
	if len(r.Unified) > 0 {
		return invalid("unified", "invalid configuration: cannot use unified on cgroup v1")
	}
	for _, step := range []struct {
		controller string
		set        func(*setter, *specs.LinuxResources)
	}{
		{"cpuset", setCpuset},
		{"memory", setMemoryV1},
		{"cpu", setCPUV1},
		{"pids", setPids},
		{"blkio", setBlkioV1},
		{"hugetlb", setHugetlbV1},
		{"net_cls", setNetClass},
		{"net_prio", setNetPriorities},
		{"rdma", setRdma},
	} {
		if !wanted(step.controller) {
			continue
		}
		s := &setter{dir: c.dirOf(step.controller), controller: step.controller}
		if step.set(s, r); s.err != nil {
			return s.err
		}
	}
	return nil
}

// unavailable words a limit whose hierarchy the container has no directory in.
func unavailable(field, controller string) error {
	return errdefs.FailedPrecondition.Errorf("cannot set linux.resources.%s: container could not join or create cgroup: the %s controller is not available", field, controller)
}

func setCpuset(s *setter, r *specs.LinuxResources) {
	if r.CPU == nil {
		return
	}
	s.text("cpu.cpus", "cpuset.cpus", r.CPU.Cpus)
	s.text("cpu.mems", "cpuset.mems", r.CPU.Mems)
}

func setMemoryV1(s *setter, r *specs.LinuxResources) {
	m := r.Memory
	if m == nil {
		return
	}
	if value(m.Kernel) != 0 || value(m.KernelTCP) != 0 {
		slog.Warn("Kernel memory settings are ignored and will be removed")
	}
	limit, swap := value(m.Limit), value(m.Swap)
	unlimitedSwap := limit == -1 && swap == 0 // a limit of memory and swap must not stay below one of memory
	setSwap := func(s *setter) {
		if unlimitedSwap {
			s.optional(func(s *setter) { s.number("memory.swap", "memory.memsw.limit_in_bytes", -1) })
			return
		}
		s.number("memory.swap", "memory.memsw.limit_in_bytes", swap)
	}
	s.retry(func(s *setter) { s.number("memory.limit", "memory.limit_in_bytes", limit) }, setSwap)
	s.explainBusy(limit)
	s.number("memory.reservation", "memory.soft_limit_in_bytes", value(m.Reservation))
	s.number("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", value(m.KernelTCP))
	if m.UseHierarchy != nil && *m.UseHierarchy {
		s.set("memory.useHierarchy", "memory.use_hierarchy", "1")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		s.set("memory.disableOOMKiller", "memory.oom_control", "1")
	}
	if m.Swappiness != nil && int64(*m.Swappiness) != -1 {
		s.set("memory.swappiness", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
	}
}

// explainBusy adds the usage to a limit's EBUSY: v1 refuses a limit that it
// cannot reclaim down to.
func (s *setter) explainBusy(limit int64) {
	if !errors.Is(s.err, unix.EBUSY) {
		return
	}
	usage, err := readNumber(s.dir, "memory.usage_in_bytes")
	if err != nil {
		return
	}
	peak, err := readNumber(s.dir, "memory.max_usage_in_bytes")
	if err != nil {
		return
	}
	s.err = fmt.Errorf("unable to set memory limit to %d (current usage: %d, peak usage: %d): %w", limit, usage, peak, s.err)
}

func setCPUV1(s *setter, r *specs.LinuxResources) {
	cpu := r.CPU
	if cpu == nil {
		return
	}
	s.retry(
		func(s *setter) { s.unsigned("cpu.realtimePeriod", "cpu.rt_period_us", value(cpu.RealtimePeriod)) },
		func(s *setter) { s.number("cpu.realtimeRuntime", "cpu.rt_runtime_us", value(cpu.RealtimeRuntime)) },
	)
	s.weight(cpu, "cpu.shares", value(cpu.Shares))
	// A shorter period is refused while the old quota would exceed the
	// parent's share of it, a larger quota while the old period stands; a
	// burst must not exceed the quota.
	quota := func(s *setter) { s.number("cpu.quota", "cpu.cfs_quota_us", value(cpu.Quota)) }
	burst := func(s *setter) {
		if cpu.Burst != nil {
			s.set("cpu.burst", "cpu.cfs_burst_us", strconv.FormatUint(*cpu.Burst, 10))
		}
	}
	s.retry(
		func(s *setter) { s.unsigned("cpu.period", "cpu.cfs_period_us", value(cpu.Period)) },
		func(s *setter) { s.retry(quota, burst) },
	)
}

// weight sets whether there is one, and it, in this order: an idle cgroup has no other
// weight, and the kernel refuses to write one.
func (s *setter) weight(cpu *specs.LinuxCPU, file string, weight uint64) {
	if cpu.Idle != nil {
		s.set("cpu.idle", "cpu.idle", strconv.FormatInt(*cpu.Idle, 10))
	}
	if value(cpu.Idle) == 0 {
		s.unsigned("cpu.shares", file, weight)
	}
}

func setPids(s *setter, r *specs.LinuxResources) {
	if limit, ok := pidsLimit(r); ok && limit < 0 {
		s.set("pids.limit", "pids.max", "max")
	} else if ok {
		s.number("pids.limit", "pids.max", limit)
	}
}

// pidsLimit is the limit, negative for none. 0 is one, too (config-linux.md,
// pids); as in runc it means the first process alone, without which there is no
// container, and which is the least that systemd takes.
func pidsLimit(r *specs.LinuxResources) (limit int64, ok bool) {
	if r.Pids == nil || r.Pids.Limit == nil {
		return 0, false
	}
	if *r.Pids.Limit == 0 {
		return 1, true
	}
	return *r.Pids.Limit, true
}

// setBlkioV1 uses BFQ's names first: the other scheduler with weights, CFQ, is
// gone since Linux 5.0.
func setBlkioV1(s *setter, r *specs.LinuxResources) {
	b := r.BlockIO
	if b == nil {
		return
	}
	if weight := uint64(value(b.Weight)); weight != 0 {
		s.either("blockIO.weight", "blkio.bfq.weight", "blkio.weight", strconv.FormatUint(weight, 10))
	}
	s.unsigned("blockIO.leafWeight", "blkio.leaf_weight", uint64(value(b.LeafWeight)))
	for _, d := range b.WeightDevice {
		device := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
		if weight := uint64(value(d.Weight)); weight != 0 {
			s.either("blockIO.weightDevice", "blkio.bfq.weight_device", "blkio.weight_device", device+strconv.FormatUint(weight, 10))
		}
		if weight := uint64(value(d.LeafWeight)); weight != 0 {
			s.set("blockIO.weightDevice.leafWeight", "blkio.leaf_weight_device", device+strconv.FormatUint(weight, 10))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			s.set("blockIO."+t.field, "blkio.throttle."+t.v1, throttleLine(d))
		}
	}
}

// either writes the first of two files that exists.
func (s *setter) either(field, file, other, text string) {
	if s.err != nil {
		return
	}
	s.set(field, file, text)
	if s.dir != "" && errors.Is(s.err, unix.ENOENT) {
		s.err = nil
		s.set(field, other, text)
	}
}

// throttle is one of the spec's four lists.
type throttle struct {
	field, v1, v2 string
	devices       []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"throttleReadBpsDevice", "read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func setHugetlbV1(s *setter, r *specs.LinuxResources) {
	for _, h := range r.HugepageLimits {
		limit := strconv.FormatUint(h.Limit, 10)
		s.set("hugepageLimits", "hugetlb."+h.Pagesize+".limit_in_bytes", limit)
		s.optional(func(s *setter) { s.set("hugepageLimits", "hugetlb."+h.Pagesize+".rsvd.limit_in_bytes", limit) })
	}
}

func setNetClass(s *setter, r *specs.LinuxResources) {
	if r.Network != nil {
		s.unsigned("network.classID", "net_cls.classid", uint64(value(r.Network.ClassID)))
	}
}

func setNetPriorities(s *setter, r *specs.LinuxResources) {
	if r.Network == nil {
		return
	}
	for _, p := range r.Network.Priorities {
		s.set("network.priorities", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
	}
}

func setRdma(s *setter, r *specs.LinuxResources) {
	for device, limits := range r.Rdma {
		line := device
		if limits.HcaHandles != nil {
			line += fmt.Sprintf(" hca_handle=%d", *limits.HcaHandles)
		}
		if limits.HcaObjects != nil {
			line += fmt.Sprintf(" hca_object=%d", *limits.HcaObjects)
		}
		s.set("rdma", "rdma.max", line)
	}
}
