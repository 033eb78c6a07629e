package main

import (
	"context"
	"encoding/json"
	"math"
	"time"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

var eventsCommand = command{
	name: "events", args: "<container-id>", min: 1, max: 1,
	usage: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
	description: `The events command displays information about the container. By default the
information is displayed once every 5 seconds.`,
	bind: func(f *flags) action {
		interval := f.duration("interval", 5*time.Second, "set the stats collection interval")
		once := f.flag("stats", "", "display the container's stats then exit")
		return func(c *call) error {
			if *interval <= 0 {
				return errdefs.InvalidArgument.Errorf("duration interval must be greater than 0")
			}
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			cg, err := container.RunningCgroup()
			if err != nil {
				return err
			}
			if *once {
				return c.printStats(cg, container.ID)
			}
			return c.follow(container, cg, *interval)
		}
	},
}

// event is a line of output.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// follow prints until the container has stopped: its cgroup is then removed,
// which ends the watch, or the next look at it says so.
func (c *call) follow(container *libcontainer.Container, cg *cgroup.Cgroup, interval time.Duration) error {
	nsenter.Unbind()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	oom, err := cg.WatchOOM(ctx)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case _, open := <-oom:
			if !open {
				return nil
			}
			err = json.NewEncoder(c.stdout).Encode(event{Type: "oom", ID: container.ID})
		case <-ticker.C:
			if _, stopped := container.RunningCgroup(); stopped != nil {
				return nil
			}
			err = c.printStats(cg, container.ID)
		}
		if err != nil {
			return err
		}
	}
}

func (c *call) printStats(cg *cgroup.Cgroup, id string) error {
	stats, err := cg.Stats()
	if err != nil {
		return err
	}
	details, err := cg.Details()
	if err != nil {
		return err
	}
	return json.NewEncoder(c.stdout).Encode(event{Type: "stats", ID: id, Data: newStatsData(&stats, &details, len(cg.Location().V1) > 0)})
}

// statsData is runc's shape of statistics, which engines parse. Intel RDT and
// network are empty, as in runc where it does not know.
type statsData struct {
	CPU struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			Percpu []uint64 `json:"percpu,omitempty"`

			PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
			PercpuUser   []uint64 `json:"percpu_user,omitempty"`

			Kernel uint64 `json:"kernel"`
			User   uint64 `json:"user"`
		} `json:"usage,omitempty"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling,omitempty"`
		PSI *cgroup.Pressure `json:"psi,omitempty"`
	} `json:"cpu"`
	Cpuset cpusetData `json:"cpuset"`
	Memory struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     memoryData        `json:"usage,omitempty"`
		Swap      memoryData        `json:"swap,omitempty"`
		Kernel    memoryData        `json:"kernel,omitempty"`
		KernelTCP memoryData        `json:"kernelTCP,omitempty"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *cgroup.Pressure  `json:"psi,omitempty"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"` // 0: none
	} `json:"pids"`
	Blkio struct {
		Bytes      []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Operations []blkioEntry `json:"ioServicedRecursive,omitempty"`

		PSI *cgroup.Pressure `json:"psi,omitempty"`
	} `json:"blkio"`
	Hugetlb           map[string]hugetlbData `json:"hugetlb"`
	IntelRdt          struct{}               `json:"intel_rdt"`
	NetworkInterfaces []struct{}             `json:"network_interfaces"`
}

type cpusetData struct {
	cpus, mems []uint16
	flags      map[string]int64
}

// MarshalJSON puts the flags, 0 where there are none, beside the lists.
func (d cpusetData) MarshalJSON() ([]byte, error) {
	object := make(map[string]any, len(cgroup.CpusetFlags)+2)
	for _, name := range cgroup.CpusetFlags {
		object[name] = d.flags[name]
	}
	if len(d.cpus) > 0 {
		object["cpus"] = d.cpus
	}
	if len(d.mems) > 0 {
		object["mems"] = d.mems
	}
	return json.Marshal(object)
}

type memoryData struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

type blkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

type hugetlbData struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

func newStatsData(s *cgroup.Stats, more *cgroup.Details, v1 bool) *statsData {
	d := &statsData{Hugetlb: make(map[string]hugetlbData), Cpuset: cpusetData{more.Cpuset.CPUs, more.Cpuset.Mems, more.Cpuset.Flags}}
	d.CPU.Usage.PercpuKernel, d.CPU.Usage.PercpuUser = more.PerCPUKernel, more.PerCPUUser
	d.CPU.PSI, d.Memory.PSI, d.Blkio.PSI = s.CPU.Pressure, s.Memory.Pressure, s.IO.Pressure
	d.CPU.Usage.Total, d.CPU.Usage.Percpu = s.CPU.Usage, s.CPU.PerCPU
	d.CPU.Usage.Kernel, d.CPU.Usage.User = s.CPU.System, s.CPU.User
	d.CPU.Throttling.Periods, d.CPU.Throttling.ThrottledPeriods = s.CPU.Periods, s.CPU.ThrottledPeriods
	d.CPU.Throttling.ThrottledTime = s.CPU.Throttled
	d.Memory.Cache, d.Memory.Raw = s.Memory.Cache, s.Memory.Raw
	d.Memory.Usage, d.Memory.Swap = newMemoryData(s.Memory.MemoryUse, v1), newMemoryData(s.Memory.Swap, v1)
	d.Memory.Kernel, d.Memory.KernelTCP = newMemoryData(s.Memory.Kernel, v1), newMemoryData(s.Memory.TCP, v1)
	d.Pids.Current = s.Pids.Current
	if s.Pids.Limit != cgroup.Unlimited {
		d.Pids.Limit = s.Pids.Limit
	}
	for _, e := range s.IO.Bytes {
		d.Blkio.Bytes = append(d.Blkio.Bytes, blkioEntry(e))
	}
	for _, e := range s.IO.Operations {
		d.Blkio.Operations = append(d.Blkio.Operations, blkioEntry(e))
	}
	for size, h := range s.Hugetlb {
		d.Hugetlb[size] = hugetlbData{h.Usage, h.Peak, h.Failures}
	}
	return d
}

// noLimitV1 is what v1 has for none, and runc prints: the largest number of whole pages.
const noLimitV1 = math.MaxInt64 &^ 0xfff

func newMemoryData(m cgroup.MemoryUse, v1 bool) memoryData {
	if v1 && m.Limit == cgroup.Unlimited {
		m.Limit = noLimitV1
	}
	return memoryData{Limit: m.Limit, Usage: m.Usage, Max: m.Peak, Failcnt: m.Failures}
}
