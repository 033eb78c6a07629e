package supervisor

import (
	"testing"

	"github.com/engined/engined/libcontainer/cgroup"
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

func TestUnlimitedPidsAreZero(t *testing.T) {
	if got := statsMessage(cgroup.Stats{Pids: cgroup.PidsStats{Current: 3, Limit: cgroup.Unlimited}}); got.PidsStats.Limit != 0 || got.PidsStats.Current != 3 {
		t.Errorf("%v", got.PidsStats)
	}
}
