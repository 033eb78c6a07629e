package leftovers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A cgroup that stays is a leak; those that others make meanwhile are not.
func TestAwaitMindsWhatWasThereBefore(t *testing.T) {
	roots, err := cgroupRoots()
	if err != nil || len(roots) == 0 {
		t.Skipf("no cgroups: %v", err)
	}
	prefix := fmt.Sprintf("%sawait%d-", Prefix, os.Getpid())
	mine, others := filepath.Join(roots[0], prefix+"mine"), filepath.Join(roots[0], prefix+"others")
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = os.Remove(mine)
		_ = os.Remove(others)
	})
	leak := func(item Item) bool { return strings.HasPrefix(filepath.Base(item.Name), prefix) }
	if err := Await(time.Now(), leak); err == nil || !strings.Contains(err.Error(), mine) {
		t.Errorf("of one that stays: %v", err)
	}
	looks := 0
	err = Await(time.Now().Add(time.Minute), func(item Item) bool {
		if !leak(item) {
			return false
		}
		if looks++; looks == 1 { // the first look is over
			if err := os.Mkdir(others, 0o755); err != nil {
				t.Error(err)
			}
			if err := os.Remove(mine); err != nil {
				t.Error(err)
			}
		}
		return true
	})
	if err != nil {
		t.Errorf("of one that came later: %v", err)
	}
}
