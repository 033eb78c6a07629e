package supervisor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// growth is what TestNothingGrows works with and looks at.
type growth struct {
	*stack
	bundles          []string // one for each caller
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

// callers is how many clients call at the same time.
const callers = 4

// TestNothingGrows: thousands of processes and containers leave descriptors,
// goroutines and memory as they were.
func TestNothingGrows(t *testing.T) {
	t.Parallel() // much of it is waiting
	socket := filepath.Join(t.TempDir(), "metrics.sock")
	s := newStack(t, "--metrics-address", "unix://"+socket, "--debug=false") // samples of allocations grow
	c := s.run("growing", "exec sleep 100000")
	g := &growth{stack: s, metrics: socket, supervisor: s.process.Process.Pid, shim: int(c.ShimPid)}
	for range callers {
		g.bundles = append(g.bundles, s.bundle("exit 0"))
	}
	full := os.Getenv("SUPERVISOR_TEST_FULL") != ""
	execs, cycles, parts := size(t, 150, 100_000), size(t, 15, 10_000), 1
	first, firstCycles := execs, cycles // what grows once: pools, buffers, the heap's first size
	if full {
		parts = 20
		first, firstCycles = max(execs/20, 1000), max(cycles/20, 100)
	}
	g.work(t, first, firstCycles)
	readings := []figures{g.rested(t)}
	for range parts {
		g.work(t, execs/parts, cycles/parts)
		readings = append(readings, g.rested(t))
	}
	before, after := readings[0], readings[parts]
	if after.supervisorFiles > before.supervisorFiles || after.shimFiles > before.shimFiles || after.goroutines > before.goroutines {
		t.Errorf("descriptors or goroutines grew: %+v, then %+v", before, after)
	}
	if after.shim > 5<<9 {
		t.Errorf("the shim keeps %d KiB of what %d execs have left", after.shim, execs)
	}
	// A few hundred executions are still the heap's beginning.
	allowed := func(before int) int { return before + 1024 }
	if full {
		// Which spans of the heap hold the few objects that live on differs by some
		// percent from one moment to the next, either way: medians tell what grows.
		before, after = median(readings[:7]), median(readings[parts-6:])
		allowed = func(before int) int { return before + before/50 }
		t.Logf("after %d execs and %d containers, at rest, median of the first seven readings %d KiB supervisor, %d KiB shim; of the last seven %d, %d",
			g.execs, g.cycles, before.supervisor, before.shim, after.supervisor, after.shim)
	}
	if after.supervisor > allowed(before.supervisor) || after.shim > allowed(before.shim) {
		t.Errorf("memory grew: %+v, then %+v", before, after)
	}
}

// median returns the median memory of some readings.
func median(readings []figures) (m figures) {
	of := func(value func(figures) int) int {
		var values []int
		for _, r := range readings {
			values = append(values, value(r))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	m.supervisor = of(func(r figures) int { return r.supervisor })
	m.shim = of(func(r figures) int { return r.shim })
	return m
}

// work has all callers add processes to one container, then live whole lives of
// others.
func (g *growth) work(t *testing.T, execs, cycles int) {
	t.Helper()
	g.share(execs, func(_, n int) error { return g.exec(t.Context(), fmt.Sprintf("p%d", g.execs+n)) })
	g.execs += execs
	g.share(cycles, func(caller, n int) error {
		return g.live(t.Context(), fmt.Sprintf("g%d", g.cycles+n), g.bundles[caller])
	})
	g.cycles += cycles
	if t.Failed() {
		t.FailNow()
	}
}

// share has the callers make many calls between them.
func (g *growth) share(many int, call func(caller, n int) error) {
	var all sync.WaitGroup
	var next atomic.Int64
	for caller := range callers {
		all.Go(func() {
			for n := int(next.Add(1)); n <= many && !g.t.Failed(); n = int(next.Add(1)) {
				if err := call(caller, n); err != nil {
					g.t.Errorf("call %d: %v", n, err)
				}
			}
		})
	}
	all.Wait()
}

// exec adds a process, waits for its end and forgets it.
func (g *growth) exec(ctx context.Context, pid string) error {
	const id = "growing"
	_, err := g.client.AddProcess(ctx, &api.AddProcessRequest{Id: id, Pid: pid, Args: []string{"true"}, Env: []string{"PATH=/bin"}})
	if err == nil {
		_, err = g.client.Wait(ctx, &api.WaitRequest{Id: id, Pid: pid})
	}
	if err == nil {
		_, err = g.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: id, Pid: pid})
	}
	return err
}

// live creates a container, waits for its end and deletes it.
func (g *growth) live(ctx context.Context, id, bundle string) error {
	_, err := g.client.CreateContainer(ctx, &api.CreateContainerRequest{Id: id, BundlePath: bundle})
	if err == nil {
		_, err = g.client.Wait(ctx, &api.WaitRequest{Id: id})
	}
	if err == nil {
		_, err = g.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: id})
	}
	return err
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
	reading := figures{
		supervisor: last[0], shim: last[1],
		supervisorFiles: metrics["process_open_fds"], goroutines: metrics["go_goroutines"], shimFiles: len(shimFiles),
	}
	t.Logf("after %d execs, %d containers: %+v", g.execs, g.cycles, reading)
	return reading
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
