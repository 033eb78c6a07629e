package oci

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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
			output, err := cmd.StdoutPipe()
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
			// That is the second thread's word, while the first may still be making it: what
			// the container says comes after.
			if _, err := fmt.Fprintln(input, "there"); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(output).ReadString('\n'); line != "there\n" {
				t.Fatalf("the container said %q: %v", line, err)
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

// TestLimitOfFilesIsTheCallers: what keeps Go from opening files at its start
// (nsenter/limit.c) is over before ocirun opens any, and is nobody else's.
func TestLimitOfFilesIsTheCallers(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	id := filepath.Base(filepath.Dir(dir)) + "-limit"
	spec := bundle.Plain(id)
	spec.Process.Rlimits = nil
	spec.Process.Args = []string{"/bin/sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn)"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ocirun.Call(dir, "delete", "--force", id) })
	const start = `exec "$0" "$@" `
	for script, want := range map[string]string{
		"ulimit -Sn 50; ulimit -Hn 60; " + start:         "50 60",
		"ulimit -Sn 50; ulimit -Hn 60; " + start + "<&-": "50 60",
		"ulimit -n 40; " + start + "2>&-":                "40 40",
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script, ocirun.Path, "--root", ocirun.Root, "run", "--bundle", dir, id)
		cmd.Stdin = os.Stdin
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: limits inside are %q, %v, want %q", script, got, err, want)
		}
	}
}

// TestNobodyStaysOnOneProcessor: where interrupts are dear ocirun stays on one
// processor, but not what it starts, nor itself while it waits.
func TestNobodyStaysOnOneProcessor(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	id, hooked := filepath.Base(filepath.Dir(dir)), filepath.Join(dir, "hooked")
	spec := bundle.Plain(id)
	const look = "grep Cpus_allowed_list /proc/self/status"
	spec.Process.Args = []string{"/bin/sh", "-c", look + "; cat"}
	spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", look + " >" + hooked}, Env: []string{"PATH=/bin:/usr/bin"}}}}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ocirun.Call(dir, "delete", "--force", id) })
	cmd := ocirun.Command(t.Context(), "run", "--bundle", dir, id)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	every := processors(t, os.Getpid())[0]
	lines := bufio.NewScanner(output)
	if !lines.Scan() || !strings.HasSuffix(lines.Text(), "\t"+every) {
		t.Errorf("the container has %q, want %s", lines.Text(), every)
	}
	if got, err := os.ReadFile(hooked); err != nil || !strings.HasSuffix(string(got), "\t"+every+"\n") {
		t.Errorf("a hook has %q, %v, want %s", got, err, every)
	}
	if out, err := ocirun.Call(dir, "exec", id, "/bin/sh", "-c", look); err != nil || !strings.HasSuffix(strings.TrimSpace(out.Stdout), "\t"+every) {
		t.Errorf("an exec has %q, %v, want %s", out.Stdout, err, every)
	}
	// It waits from a moment on that nothing tells.
	late := time.Now().Add(time.Minute)
	for got := processors(t, cmd.Process.Pid); slices.ContainsFunc(got, func(one string) bool { return one != every }); got = processors(t, cmd.Process.Pid) {
		if time.Now().After(late) {
			t.Fatalf("the threads of a waiting run have the processors %q, want %s each", got, every)
		}
		time.Sleep(time.Millisecond)
	}
	_ = input.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// processors is proc(5)'s Cpus_allowed_list of a process's threads.
func processors(t *testing.T, pid int) (lists []string) {
	t.Helper()
	statuses, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(statuses) == 0 {
		t.Fatalf("threads of process %d: %v, %v", pid, statuses, err)
	}
	for _, status := range statuses {
		text, err := os.ReadFile(status)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "Cpus_allowed_list:\t")
		list, _, _ := strings.Cut(rest, "\n")
		lists = append(lists, list)
	}
	return lists
}
