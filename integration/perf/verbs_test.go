package perf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
)

// allRuntimes returns ocirun and those it is compared with, which keep their state in
// memory, and a directory for bundles.
func allRuntimes(t *testing.T) (runtimes []bundle.Runtime, dir string) {
	t.Helper()
	harness.NeedRoot(t)
	state := harness.MemoryDir(t)
	runtimes = append([]bundle.Runtime{{Name: "ocirun", Path: harness.Binary("ocirun"), Root: filepath.Join(state, "root-ocirun")}},
		bundle.References(state)...)
	if len(runtimes) == 1 {
		t.Skip("neither runc nor crun is installed")
	}
	return runtimes, harness.TempDir(t)
}

// call is one call that must succeed. Nothing reads its output: a container
// that goes on would hold a pipe open.
func call(runtime bundle.Runtime, dir string, args ...string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	out, err := runtime.CallInto(null, dir, args...)
	if err == nil && out.Status != 0 {
		err = fmt.Errorf("%s %v: status %d", runtime.Name, args, out.Status)
	}
	return err
}

// sleeper makes a bundle whose process lives until it is killed, and returns
// the container's id.
func sleeper(t *testing.T, dir string, runtime bundle.Runtime) string {
	t.Helper()
	id := leftovers.Prefix + "verbs-" + filepath.Base(dir) + "-" + runtime.Name
	spec := bundle.Docker(id)
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = runtime.Call(dir, "delete", "--force", id) })
	return id
}

// TestCycle measures create, start and delete --force of a container that runs.
func TestCycle(t *testing.T) {
	runtimes, dir := allRuntimes(t)
	var contenders []contender
	for _, runtime := range runtimes {
		own := filepath.Join(dir, "cycle", runtime.Name)
		id := sleeper(t, own, runtime)
		contenders = append(contenders, contender{name: runtime.Name, once: func() error {
			return errors.Join(call(runtime, own, "create", id), call(runtime, own, "start", id), call(runtime, own, "delete", "--force", id))
		}})
	}
	show(t, "create + start + delete --force, dockerd's spec", 60, 0, contenders)
	show(t, "create + start + delete --force, dockerd's spec, 150 ms idle between", 20, 150*time.Millisecond, contenders)
}

// TestExec measures exec of /bin/true in a container that runs.
func TestExec(t *testing.T) {
	runtimes, dir := allRuntimes(t)
	var contenders []contender
	for _, runtime := range runtimes {
		own := filepath.Join(dir, "exec", runtime.Name)
		id := sleeper(t, own, runtime)
		if err := call(runtime, own, "run", "--detach", id); err != nil {
			t.Fatal(err)
		}
		contenders = append(contenders, contender{name: runtime.Name, once: func() error { return call(runtime, own, "exec", id, "/bin/true") }})
	}
	show(t, "exec of /bin/true, dockerd's spec", 100, 0, contenders)
	show(t, "exec of /bin/true, dockerd's spec, 150 ms idle between", 20, 150*time.Millisecond, contenders)
}

const atOnce = 16

// TestParallel measures 16 runs at a time: its ratios are of throughput too.
func TestParallel(t *testing.T) {
	runtimes, dir := allRuntimes(t)
	var contenders []contender
	for _, runtime := range runtimes {
		var dirs, ids [atOnce]string
		for i := range atOnce {
			dirs[i] = filepath.Join(dir, "parallel", runtime.Name, strconv.Itoa(i))
			ids[i] = fmt.Sprintf("%sparallel-%s-%d", leftovers.Prefix, runtime.Name, i)
			if err := bundle.Make(dirs[i], bundle.Docker(ids[i])); err != nil {
				t.Fatal(err)
			}
		}
		contenders = append(contenders, contender{name: runtime.Name, once: func() error {
			return together(atOnce, func(i int) error { return call(runtime, dirs[i], "run", ids[i]) })
		}})
	}
	show(t, "16 runs of /bin/true at once, dockerd's spec", 30, 0, contenders)
}

// together runs n calls at once and waits for all.
func together(n int, one func(i int) error) error {
	failed := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { failed[i] = one(i) })
	}
	all.Wait()
	return errors.Join(failed...)
}

// TestCrowded measures run of /bin/true beside 500 containers that live, and beside
// none before and after them, in ten rounds: how fast a machine is changes within the
// minute, by more than what is looked for. Each runtime is by itself, since what the
// kernel does later about a container that is gone takes longer beside many, too. What
// all take longer for is the kernel's.
func TestCrowded(t *testing.T) {
	runtimes, dir := allRuntimes(t)
	live, rounds, samples := few(500), 1, 2
	if *full {
		rounds, samples = 10, 15
	}
	var contenders []contender
	for _, runtime := range runtimes {
		own, probe := filepath.Join(dir, "probe", runtime.Name), leftovers.Prefix+"crowded-"+runtime.Name
		if err := bundle.Make(own, bundle.Docker(probe)); err != nil {
			t.Fatal(err)
		}
		contenders = append(contenders, contender{name: runtime.Name, once: func() error { return call(runtime, own, "run", probe) }})
	}
	shared := filepath.Join(dir, "crowd")
	if err := bundle.Make(shared, bundle.Docker("unused")); err != nil {
		t.Fatal(err)
	}
	pauses := []time.Duration{150 * time.Millisecond, 0} // the quiet one first
	alone, beside := make([]blocks, len(pauses)), make([]blocks, len(pauses))
	all := func(results []blocks) {
		if *full { // the kernel does later what hundreds that came or went have left to do
			time.Sleep(3 * time.Second)
		}
		for i, idle := range pauses {
			results[i] = append(results[i], apart(t, samples, idle, contenders))
		}
	}
	all(alone)
	for range rounds {
		undo := crowd(t, runtimes[0], shared, live)
		all(beside)
		undo()
		all(alone)
	}
	if !*full {
		return
	}
	for i, idle := range pauses {
		fmt.Print(table(fmt.Sprintf("run of /bin/true, dockerd's spec, %v idle between, beside none", idle), alone[i].together()),
			table(fmt.Sprintf("the same beside %d live containers", live), beside[i].together()))
		for j := range contenders {
			ratios := beside[i].over(alone[i], j)
			fmt.Printf("  %-12s takes %.2f of what it takes beside none (in the rounds %.2f)\n",
				contenders[j].name, ratios[len(ratios)/2], ratios)
		}
	}
}

// apart takes samples of each contender, one contender after the other.
func apart(t *testing.T, samples int, idle time.Duration, contenders []contender) []measured {
	t.Helper()
	var results []measured
	for i := range contenders {
		added, err := takeTurns(samples, idle, contenders[i:i+1], others)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, added...)
	}
	return results
}

// blocks are what the same contenders showed one time after the other.
type blocks [][]measured

// together is as if it had been one time.
func (b blocks) together() []measured {
	all := make([]measured, len(b[0]))
	for _, block := range b {
		for j, m := range block {
			all[j].name = m.name
			all[j].times = append(all[j].times, m.times...)
			slices.Sort(all[j].times)
		}
	}
	return all
}

// over returns the ratios, sorted, of a contender's medians to those of the blocks before
// and after each, of which there is one more.
func (b blocks) over(around blocks, contender int) []float64 {
	median := func(block []measured) float64 { return float64(quantile(block[contender].times, 0.5)) }
	var ratios []float64
	for i := range b {
		ratios = append(ratios, 2*median(b[i])/(median(around[i])+median(around[i+1])))
	}
	slices.Sort(ratios)
	return ratios
}

func TestBlocksAreComparedWithTheirNeighbours(t *testing.T) {
	block := func(times ...time.Duration) []measured { return []measured{{name: "a", times: times}} }
	alone, beside := blocks{block(10, 10), block(20, 20), block(30, 30)}, blocks{block(30, 30), block(25, 25)}
	if got := beside.over(alone, 0); !slices.Equal(got, []float64{1, 2}) {
		t.Errorf("got %v", got)
	}
	if got := beside.together(); !slices.Equal(got[0].times, []time.Duration{25, 25, 30, 30}) {
		t.Errorf("got %v", got)
	}
}

// crowd starts n containers of one bundle; the returned function ends them.
func crowd(t *testing.T, runtime bundle.Runtime, shared string, n int) func() {
	t.Helper()
	var ids []string
	remove := func() {
		for _, id := range ids {
			if err := call(runtime, shared, "delete", "--force", id); err != nil {
				t.Error(err)
			}
		}
		ids = nil
	}
	t.Cleanup(remove)
	for i := range n {
		id := fmt.Sprintf("%scrowd-%d", leftovers.Prefix, i)
		spec := bundle.Docker(id)
		spec.Process.Args = []string{"/bin/sleep", "1000"}
		if err := bundle.WriteConfig(shared, spec); err != nil {
			t.Fatal(err)
		}
		if err := call(runtime, shared, "run", "--detach", id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return remove
}
