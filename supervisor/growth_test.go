package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// growth is what TestNothingGrows works with and looks at.
type growth struct {
	*stack
	bundle           string
	metrics          string
	supervisor, shim int // pids
	execs, cycles    int // so far
}

// figures are what must not grow.
type figures struct {
	supervisor, shim int // KiB of memory that is no file's
	supervisorFiles  float64
	goroutines       float64
	shimFiles        int
}

// TestNothingGrows: thousands of processes and containers leave descriptors,
// goroutines and memory as they were.
func TestNothingGrows(t *testing.T) {
	t.Parallel() // much of it is waiting
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	s := newStack(t, "--metrics-address", "unix://"+socket, "--debug=false") // samples of allocations grow
	c := s.run("growing", "exec sleep 100000")
	g := &growth{stack: s, bundle: s.bundle("exit 0"), metrics: socket, supervisor: s.process.Process.Pid, shim: int(c.ShimPid)}
	execs, cycles := size(t, 150, 100_000), size(t, 15, 10_000)
	g.work(t, max(execs/20, 150), max(cycles/20, 15)) // what grows once: pools, buffers, the heap's first size
	before := g.rested(t)
	t.Logf("after %d execs, %d containers: %+v", g.execs, g.cycles, before)
	var after figures
	for range 10 {
		g.work(t, execs/10, cycles/10)
		if os.Getenv("SUPERVISOR_TEST_FULL") != "" {
			after = g.rested(t)
			t.Logf("after %d execs, %d containers: %+v", g.execs, g.cycles, after)
		}
	}
	after = g.rested(t)
	t.Logf("after %d execs, %d containers: %+v", g.execs, g.cycles, after)
	if after.supervisorFiles > before.supervisorFiles || after.shimFiles > before.shimFiles || after.goroutines > before.goroutines {
		t.Errorf("descriptors or goroutines grew: %+v, then %+v", before, after)
	}
	// Which spans of the heap are in use differs by some percent from one moment to
	// the next, either way, and a few hundred executions are still its beginning.
	bound := func(before int) int { return before + 1024 }
	if os.Getenv("SUPERVISOR_TEST_FULL") != "" {
		bound = func(before int) int { return before + before/10 }
	}
	if after.supervisor > bound(before.supervisor) || after.shim > bound(before.shim) {
		t.Errorf("memory grew: %+v, then %+v", before, after)
	}
}

// work adds processes to one container and lives whole lives of others.
func (g *growth) work(t *testing.T, execs, cycles int) {
	t.Helper()
	for range execs {
		g.execs++
		pid := fmt.Sprintf("p%d", g.execs)
		if _, err := g.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "growing", Pid: pid, Args: []string{"true"}, Env: []string{"PATH=/bin"}}); err != nil {
			t.Fatal(err)
		}
		g.wait("growing", pid)
		if _, err := g.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "growing", Pid: pid}); err != nil {
			t.Fatal(err)
		}
	}
	for range cycles {
		g.cycles++
		id := fmt.Sprintf("g%d", g.cycles)
		if _, err := g.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: id, BundlePath: g.bundle}); err != nil {
			t.Fatal(err)
		}
		g.wait(id, "")
		g.delete(id, false)
	}
}

// rested returns the figures once both processes have given back what they do
// not need, which they do when nothing has happened for a while: when they have
// not changed for longer than that.
func (g *growth) rested(t *testing.T) figures {
	t.Helper()
	const still = 5 * time.Second
	late := time.Now().Add(patience + still)
	last, since := [2]int{}, time.Now()
	for time.Since(since) < still {
		now := [2]int{privateKiB(t, g.supervisor), privateKiB(t, g.shim)}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(late) {
			t.Fatal("the supervisor's memory does not come to rest")
		}
		time.Sleep(100 * time.Millisecond) // nothing tells of it
	}
	shimFiles, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.shim))
	if err != nil {
		t.Fatal(err)
	}
	metrics := metricsOf(t, g.metrics)
	return figures{
		supervisor: last[0], shim: last[1],
		supervisorFiles: metrics["process_open_fds"], goroutines: metrics["go_goroutines"], shimFiles: len(shimFiles),
	}
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
