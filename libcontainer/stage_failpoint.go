package libcontainer

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/nsenter"
)

// Before each operation of a plan there are three fail points: the stage dies
// there, its parent does, or both do. The stage itself knows nothing of them:
// the plan gets one more OP_SYNC, at which the stage waits, and the parent
// kills. A stage that is the first process of a pid namespace could not even
// kill itself. After OP_READY the parent is gone and there are none, nor from the
// first hook on.
const (
	stepDeath  int64 = 1000 + iota // of the stage
	stepOrphan                     // of the parent
	stepBoth
	stepEnd
)

var deaths = map[int64]string{stepDeath: "stage-dies", stepOrphan: "parent-dies", stepBoth: "both-die"}

// arm puts the step of the wanted fail point into the plan.
func arm(plan *nsenter.Plan) {
	if !failpoint.Enabled {
		return
	}
	for i := range plan.Ops {
		if plan.Ops[i].Code == nsenter.Ready || plan.Ops[i].Code == nsenter.Hook {
			return
		}
		for death := stepDeath; death < stepEnd; death++ {
			if failpoint.Wants(fmt.Sprintf("%s-at-%d-%s", deaths[death], i, plan.Ops[i].Code)) {
				step := nsenter.Op{Code: nsenter.Sync, Num: num(uint64(death)), Why: "a fail point"}
				plan.Ops = slices.Insert(plan.Ops, i, step)
				return
			}
		}
	}
}

// die brings about what arm asked for.
func (s *stage) die(death int64) error {
	if death != stepOrphan {
		if err := unix.Kill(s.pid, unix.SIGKILL); err != nil {
			return err
		}
	}
	failpoint.At(deaths[death]) // the trace shows that it came to that
	if death != stepDeath {
		failpoint.Die()
	}
	return nil
}
