package supervisor_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestSupervisorGoesBeforeWhatItStarts: where it has a session of its own.
func TestSupervisorGoesBeforeWhatItStarts(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/autogroup"); err != nil {
		t.Skipf("the kernel does not share the processor out by session: %v", err)
	}
	before := read(t, "/proc/self/autogroup")
	s := newStack(t)
	s.end(syscall.SIGTERM)
	s.ownSession = true
	s.start()
	c := s.run("a", "exec sleep 1000")
	for pid, want := range map[int]string{s.process.Process.Pid: "nice -10", int(c.ShimPid): "nice 0", int(c.Processes[0].SystemPid): "nice 0"} {
		if got := read(t, fmt.Sprintf("/proc/%d/autogroup", pid)); !strings.Contains(got, want) {
			t.Errorf("process %d has %q, expected %s", pid, got, want)
		}
	}
	if got := read(t, "/proc/self/autogroup"); got != before {
		t.Errorf("who started the supervisor has %q, before it had %q", got, before)
	}
}
