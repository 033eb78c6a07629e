package spec

import (
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// nanoPeriod is the CPU period that NanoCpus counts in.
const nanoPeriod = 100 * time.Millisecond

func resources(in Input) *specs.LinuxResources {
	return &specs.LinuxResources{
		Devices: deviceRules(in),
		Memory:  memory(in),
		CPU:     cpu(in),
		Pids:    pids(in),
		BlockIO: in.BlockIO,
	}
}

func memory(in Input) *specs.LinuxMemory {
	host := in.HostConfig
	m := &specs.LinuxMemory{DisableOOMKiller: host.OomKillDisable}
	if host.Memory > 0 {
		m.Limit = &host.Memory
	}
	if host.MemoryReservation > 0 {
		m.Reservation = &host.MemoryReservation
	}
	if host.MemorySwap != 0 {
		m.Swap = &host.MemorySwap
	}
	if host.MemorySwappiness != nil && *host.MemorySwappiness >= 0 {
		swappiness := uint64(*host.MemorySwappiness)
		m.Swappiness = &swappiness
	}
	return m
}

func cpu(in Input) *specs.LinuxCPU {
	host := in.HostConfig
	c := &specs.LinuxCPU{Cpus: host.CpusetCpus, Mems: host.CpusetMems}
	if host.CPUShares > 0 {
		shares := uint64(host.CPUShares)
		c.Shares = &shares
	}
	period, quota := host.CPUPeriod, host.CPUQuota
	if host.NanoCPUs > 0 {
		period = nanoPeriod.Microseconds()
		quota = host.NanoCPUs * period / int64(time.Second)
	}
	if period != 0 {
		c.Period = unsigned(period)
	}
	if quota != 0 {
		c.Quota = &quota
	}
	if host.CPURealtimePeriod != 0 {
		c.RealtimePeriod = unsigned(host.CPURealtimePeriod)
	}
	if host.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &host.CPURealtimeRuntime
	}
	return c
}

func unsigned(value int64) *uint64 {
	u := uint64(value)
	return &u
}

// pids: Docker's 0 and -1 are both 'no limit'.
func pids(in Input) *specs.LinuxPids {
	limit := in.HostConfig.PidsLimit
	if limit == nil {
		return nil
	}
	if *limit <= 0 {
		none := int64(-1)
		return &specs.LinuxPids{Limit: &none}
	}
	return &specs.LinuxPids{Limit: limit}
}
