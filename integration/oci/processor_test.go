package oci

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

// TestRunsOnOneProcessor: the Go scheduler, asked what it has to run on, says
// one processor, or as many as the caller asked for.
func TestRunsOnOneProcessor(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	bare := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
	for name, env := range map[string][]string{"gomaxprocs=1": {}, "gomaxprocs=3": {"GOMAXPROCS=3"}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(dir, name)
			id := filepath.Base(filepath.Dir(filepath.Dir(dir))) + "-" + strings.ReplaceAll(name, "=", "")
			spec := bundle.Plain(id)
			spec.Process.Args = []string{"/bin/cat"}
			if err := bundle.Make(dir, spec); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = ocirun.Call(dir, "delete", "--force", id) })
			cmd := ocirun.Command(t.Context(), "run", "--bundle", dir, id)
			cmd.Env = append(append(slices.Clone(bare), env...), "GODEBUG=schedtrace=1")
			input, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			trace, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(trace)
			if !lines.Scan() || !strings.Contains(lines.Text(), " "+name+" ") {
				t.Errorf("the scheduler's first line: %q, want %s in it", lines.Text(), name)
			}
			if slacks := timerSlacks(t, cmd.Process.Pid); slacks[0] != timerSlacks(t, os.Getpid())[0] || slices.Index(slacks, watcherSlack) < 1 {
				t.Errorf("timer slacks of the threads: %v, want our own for the first and %s for one", slacks, watcherSlack)
			}
			_ = input.Close()
			for lines.Scan() { // until it ends
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// watcherSlack is nsenter/watcher.c's.
const watcherSlack = "1000000"

// timerSlacks is proc(5)'s timerslack_ns of a process's threads, oldest first.
func timerSlacks(t *testing.T, pid int) (slacks []string) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of process %d: %v, %v", pid, threads, err)
	}
	slices.SortFunc(threads, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	for _, thread := range threads {
		slack, err := os.ReadFile(filepath.Join("/proc", filepath.Base(thread), "timerslack_ns"))
		if err != nil {
			t.Fatal(err)
		}
		slacks = append(slacks, strings.TrimSpace(string(slack)))
	}
	return slacks
}
