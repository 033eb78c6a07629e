package supervisor_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests here are small unless SUPERVISOR_TEST_FULL is set: 1 for the full
// sizes, which take from a minute to hours, 50 for a fiftieth of them.
func size(t *testing.T, small, full int) int {
	t.Helper()
	value := os.Getenv("SUPERVISOR_TEST_FULL")
	if value == "" {
		return small
	}
	part, err := strconv.Atoi(value)
	if err != nil || part < 1 {
		t.Fatalf("SUPERVISOR_TEST_FULL is %q, expected 1 or more", value)
	}
	return max(small, full/part)
}

// TestKilledShimsLeaveNothing: processes are gone, the status is 137 with a
// reason, and the container can be deleted.
func TestKilledShimsLeaveNothing(t *testing.T) {
	s := newStack(t)
	for i := range size(t, 3, 50) {
		id := fmt.Sprintf("k%d", i)
		c := s.run(id, "sleep 1000 & exec sleep 1000")
		time.Sleep(rand.N(20 * time.Millisecond))
		if err := unix.Kill(int(c.ShimPid), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if exit := s.wait(id, ""); exit.Status != 137 || exit.Reason == "" {
			t.Errorf("%s: %v", id, exit)
		}
		gone(t, int(c.ShimPid))
		gone(t, int(c.Processes[0].SystemPid))
		s.delete(id, false)
		if left := s.cgroups(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
