package supervisor

import (
	"testing"

	"github.com/engined/engined/libcontainer/cgroup"
	api "github.com/engined/engined/proto/supervisor/v1"
)

func TestSystemUsageSumsSevenFields(t *testing.T) {
	sum, err := sumTicks("cpu  1 2 3 4 5 6 7 100 1000 10000\n")
	if err != nil || sum != 28*tick {
		t.Errorf("%d, %v", sum, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu0 1 2 3 4 5 6 7", "cpu a 2 3 4 5 6 7"} {
		if _, err := sumTicks(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestPressureIsToldWhereItIsCounted(t *testing.T) {
	without := statsMessage(cgroup.Stats{})
	if without.CpuStats.Psi != nil || without.MemoryStats.Psi != nil || without.BlkioStats.Psi != nil {
		t.Errorf("%v", without)
	}
	pressure := func(total uint64) *cgroup.Pressure {
		return &cgroup.Pressure{Some: cgroup.Stall{Avg10: 1.5, Total: total}, Full: cgroup.Stall{Total: total / 2}}
	}
	with := statsMessage(cgroup.Stats{CPU: cgroup.CPUStats{Pressure: pressure(2)}, Memory: cgroup.MemoryStats{Pressure: pressure(4)}, IO: cgroup.IOStats{Pressure: pressure(6)}})
	for want, got := range map[uint64]*api.PSIStats{2: with.CpuStats.Psi, 4: with.MemoryStats.Psi, 6: with.BlkioStats.Psi} {
		if got.GetSome().GetTotal() != want || got.GetFull().GetTotal() != want/2 || got.GetSome().GetAvg10() != 1.5 {
			t.Errorf("%v, expected %d", got, want)
		}
	}
}

func TestUnlimitedPidsAreZero(t *testing.T) {
	if got := statsMessage(cgroup.Stats{Pids: cgroup.PidsStats{Current: 3, Limit: cgroup.Unlimited}}); got.PidsStats.Limit != 0 || got.PidsStats.Current != 3 {
		t.Errorf("%v", got.PidsStats)
	}
}
