package supervisor_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/engined/engined/proto/supervisor/v1"
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
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + id); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// TestNothingGrows: thousands of processes and containers leave descriptors,
// goroutines and memory as they were.
func TestNothingGrows(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	s := newStack(t, "--metrics-address", "unix://"+socket)
	c := s.run("a", "exec sleep 100000")
	bundle := s.bundle("exit 0")
	exec := func(n int) {
		pid := fmt.Sprintf("p%d", n)
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: pid, Args: []string{"true"}, Env: []string{"PATH=/bin"}}); err != nil {
			t.Fatal(err)
		}
		s.wait("a", pid)
		if _, err := s.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "a", Pid: pid}); err != nil {
			t.Fatal(err)
		}
	}
	cycle := func(n int) {
		id := fmt.Sprintf("g%d", n)
		if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: id, BundlePath: bundle}); err != nil {
			t.Fatal(err)
		}
		s.wait(id, "")
		s.delete(id, false)
	}
	execs, cycles := size(t, 40, 100_000), size(t, 10, 10_000)
	for i := range execs / 4 { // what grows once: pools, buffers, the heap's first size
		exec(-i - 1)
	}
	for i := range cycles / 4 {
		cycle(-i)
	}
	supervisor, shim := s.process.Process.Pid, int(c.ShimPid)
	before := metricsOf(t, socket)
	memory := [2]int{privateKiB(t, supervisor), privateKiB(t, shim)}
	files := openFiles(t, shim)
	for i := range execs {
		exec(i + 1)
	}
	for i := range cycles {
		cycle(i + 1)
	}
	s.settles(t, func() error {
		after := metricsOf(t, socket)
		for _, name := range []string{"go_goroutines", "process_open_fds", "engined_supervisor_shims"} {
			if after[name] > before[name] {
				return fmt.Errorf("%s was %v and is %v", name, before[name], after[name])
			}
		}
		if now := openFiles(t, shim); now > files {
			return fmt.Errorf("the shim had %d descriptors and has %d", files, now)
		}
		return nil
	})
	t.Logf("%d execs, %d containers: supervisor %d → %d KiB, shim %d → %d KiB", execs, cycles,
		memory[0], privateKiB(t, supervisor), memory[1], privateKiB(t, shim))
}

// settles waits until check no longer finds anything.
func (s *stack) settles(t *testing.T, check func() error) {
	t.Helper()
	late := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(late) {
			t.Error(err)
			return
		}
		time.Sleep(50 * time.Millisecond) // connections close on their own time
	}
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// privateKiB returns the memory that is no file's.
func privateKiB(t *testing.T, pid int) (total int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); fields[0] == "Anonymous:" {
			if total, err = strconv.Atoi(fields[1]); err != nil {
				t.Fatal(err)
			}
			return total
		}
	}
	t.Fatal("no Anonymous in smaps_rollup")
	return 0
}
