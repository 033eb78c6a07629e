package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// Stats reads a container's counters from the kernel.
func (s *Supervisor) Stats(_ context.Context, request *api.StatsRequest) (*api.StatsResponse, error) {
	c, err := s.look(request.Id, func(c *container) error {
		if c.status == statusStopped {
			return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, request.Id, "container %s is not running: it is %s", request.Id, c.status)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	now := timestamppb.Now()
	counted, interfaces, err := c.handle.Stats()
	if errdefs.KindOf(err) == errdefs.NotFound { // it has ended just now
		return nil, errdefs.FailedPrecondition.Coded(errdefs.NotRunning, request.Id, "container %s is not running: %w", request.Id, err)
	}
	if err != nil {
		return nil, err
	}
	stats := statsMessage(counted)
	if stats.CpuStats.SystemUsage, err = systemUsage(); err != nil {
		return nil, err
	}
	return &api.StatsResponse{NetworkStats: networkMessages(interfaces), CgroupStats: stats, Timestamp: now}, nil
}

func statsMessage(s cgroup.Stats) *api.CgroupStats {
	message := &api.CgroupStats{
		CpuStats: &api.CpuStats{
			CpuUsage: &api.CpuUsage{
				TotalUsage: s.CPU.Usage, PercpuUsage: s.CPU.PerCPU,
				UsageInKernelmode: s.CPU.System, UsageInUsermode: s.CPU.User,
			},
			ThrottlingData: &api.ThrottlingData{
				Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.Throttled,
			},
			Psi: psiMessage(s.CPU.Pressure),
		},
		MemoryStats: &api.MemoryStats{
			Cache: s.Memory.Cache, Usage: memoryMessage(s.Memory.MemoryUse), SwapUsage: memoryMessage(s.Memory.Swap),
			KernelUsage: memoryMessage(s.Memory.Kernel), Stats: s.Memory.Raw,
			Psi: psiMessage(s.Memory.Pressure),
		},
		BlkioStats: &api.BlkioStats{
			IoServiceBytesRecursive: ioMessages(s.IO.Bytes), IoServicedRecursive: ioMessages(s.IO.Operations), Psi: psiMessage(s.IO.Pressure),
		},
		HugetlbStats: map[string]*api.HugetlbStats{},
		PidsStats:    &api.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit},
	}
	if s.Pids.Limit == cgroup.Unlimited {
		message.PidsStats.Limit = 0
	}
	for size, used := range s.Hugetlb {
		message.HugetlbStats[size] = &api.HugetlbStats{Usage: used.Usage, MaxUsage: used.Peak, Failcnt: used.Failures, Limit: used.Limit}
	}
	return message
}

func memoryMessage(use cgroup.MemoryUse) *api.MemoryData {
	return &api.MemoryData{Usage: use.Usage, MaxUsage: use.Peak, Failcnt: use.Failures, Limit: use.Limit}
}

// psiMessage is nil where the kernel counts no pressure.
func psiMessage(pressure *cgroup.Pressure) *api.PSIStats {
	if pressure == nil {
		return nil
	}
	one := func(s cgroup.Stall) *api.PSIData {
		return &api.PSIData{Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300, Total: s.Total}
	}
	return &api.PSIStats{Some: one(pressure.Some), Full: one(pressure.Full)}
}

func ioMessages(entries []cgroup.IOEntry) (messages []*api.BlkioStatsEntry) {
	for _, entry := range entries {
		messages = append(messages, &api.BlkioStatsEntry{Major: entry.Major, Minor: entry.Minor, Op: entry.Op, Value: entry.Value})
	}
	return messages
}

func networkMessages(interfaces []runtime.Interface) (messages []*api.NetworkStats) {
	for _, one := range interfaces {
		messages = append(messages, &api.NetworkStats{
			Name:    one.Name,
			RxBytes: one.RxBytes, Rx_Packets: one.RxPackets, RxErrors: one.RxErrors, RxDropped: one.RxDropped,
			TxBytes: one.TxBytes, TxPackets: one.TxPackets, TxErrors: one.TxErrors, TxDropped: one.TxDropped,
		})
	}
	return messages
}

// tick is the unit of /proc/stat in nanoseconds: USER_HZ is 100, proc(5).
const tick = 1e9 / 100

// systemUsage is the time that all processors together have had: the first
// seven fields of /proc/stat's first line, as Docker counts it.
func systemUsage() (uint64, error) {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	line, err := bufio.NewReader(file).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("reading /proc/stat: %w", err)
	}
	return sumTicks(line)
}

func sumTicks(line string) (sum uint64, err error) {
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, errdefs.DataLoss.Errorf("/proc/stat begins with %q", line)
	}
	for _, field := range fields[1:8] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, errdefs.DataLoss.Errorf("/proc/stat: %w", err)
		}
		sum += ticks * tick
	}
	return sum, nil
}
