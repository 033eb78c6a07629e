package supervisor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/engined/engined/proto/errdefs"
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

// life is a container of TestKillsOfTheSupervisorLoseNothing.
type life struct {
	id     string
	status int
	log    string
	added  bool // its second process was started, and exits with status + 1
}

const lifeLines = 400

// TestKillsOfTheSupervisorLoseNothing kills the supervisor at random moments
// while containers start, write, exec and exit.
func TestKillsOfTheSupervisorLoseNothing(t *testing.T) {
	s := newStack(t)
	f := s.follow()
	const side = 20 // containers at the same time
	kills := size(t, 4, 200)
	bundles := make([]string, side)
	for i := range bundles {
		bundles[i] = s.bundle(fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done; sleep 0.2; exit %d", lifeLines, i))
	}
	over := make(chan struct{})
	var mu sync.Mutex
	var lives []life
	var clients sync.WaitGroup
	for i := range side {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				one := life{id: fmt.Sprintf("c%d-%d", i, n), status: i, log: filepath.Join(s.dir, fmt.Sprintf("log%d-%d", i, n))}
				counted, err := s.live(&one, bundles[i])
				if err != nil {
					t.Errorf("%s: %v", one.id, err)
					return
				}
				if counted {
					mu.Lock()
					lives = append(lives, one)
					mu.Unlock()
				}
			}
		})
	}
	var back []time.Duration
	for range kills {
		time.Sleep(rand.N(200 * time.Millisecond)) // any moment must do
		s.end(unix.SIGKILL)
		began := time.Now()
		s.start()
		back = append(back, time.Since(began))
	}
	close(over)
	clients.Wait()
	slices.Sort(back)
	t.Logf("%d kills, %d containers; served again after %v (median), %v at most", kills, len(lives), back[len(back)/2], back[len(back)-1])
	if len(lives) == 0 {
		t.Error("no container lived")
	}
	events := f.until(t, "all deletes", func(events []string) bool {
		return count(events, "delete ") >= len(lives)
	})
	for _, one := range lives {
		one.check(t, events)
	}
}

// retry calls until the supervisor answers: it is killed meanwhile.
func (s *stack) retry(call func() error) error {
	late := time.Now().Add(patience)
	for {
		err := call()
		if err == nil || errdefs.KindOf(err) != errdefs.Unavailable || time.Now().After(late) {
			return err
		}
	}
}

// live takes a container from its creation to its deletion. It does not count if
// the supervisor died in its creation and the next one removed it.
func (s *stack) live(one *life, bundle string) (counted bool, err error) {
	ctx := s.t.Context()
	_, err = s.client.CreateContainer(ctx, &api.CreateContainerRequest{
		Id: one.id, BundlePath: bundle, Log: &api.LogSpec{Driver: "json-file", Path: one.log},
	}, grpc.WaitForReady(true))
	if errdefs.KindOf(err) == errdefs.Unavailable {
		err = s.retry(func() error {
			_, err := s.client.State(ctx, &api.StateRequest{Id: one.id}, grpc.WaitForReady(true))
			return err
		})
		if errdefs.KindOf(err) == errdefs.NotFound {
			return false, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("creating: %w", err)
	}
	_, err = s.client.AddProcess(ctx, &api.AddProcessRequest{Id: one.id, Pid: "more", Args: []string{"sh", "-c", fmt.Sprintf("exit %d", one.status+1)}, Env: []string{"PATH=/bin"}})
	one.added = err == nil // else the supervisor is dead or the container is
	var answer *api.WaitResponse
	err = s.retry(func() (err error) {
		answer, err = s.client.Wait(ctx, &api.WaitRequest{Id: one.id}, grpc.WaitForReady(true))
		return err
	})
	if err != nil || int(answer.Exit.Status) != one.status {
		return false, fmt.Errorf("exit %v, %w", answer, err)
	}
	err = s.retry(func() error {
		_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: one.id}, grpc.WaitForReady(true))
		return err
	})
	if err != nil && errdefs.KindOf(err) != errdefs.NotFound { // the answer to the first try was lost
		return false, fmt.Errorf("deleting: %w", err)
	}
	return true, nil
}

// check expects each of the container's events and lines once.
func (l life) check(t *testing.T, events []string) {
	t.Helper()
	exit := func(pid string, status int) string {
		return strings.TrimSuffix(fmt.Sprintf("exit %s %s %d", l.id, pid, status), " 0")
	}
	wanted := []string{"created " + l.id, "start-container " + l.id + " init", exit("init", l.status), "delete " + l.id}
	if l.added {
		wanted = append(wanted, "start-process "+l.id+" more")
		// It exits by itself or, if it began late, is killed with its container.
		if status := l.status + 1; slices.Contains(events, exit("more", status)) {
			wanted = append(wanted, exit("more", status))
		} else {
			wanted = append(wanted, exit("more", 137))
		}
		if n := count(events, "exit "+l.id+" more "); n != 1 {
			t.Errorf("%d exits of %s's second process", n, l.id)
		}
	}
	for _, want := range wanted {
		n := 0
		for _, event := range events {
			if event == want {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q came %d times", want, n)
		}
	}
	data, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if len(lines) != lifeLines {
		t.Errorf("%s: %d lines, expected %d", l.id, len(lines), lifeLines)
	}
	for i, line := range lines {
		var entry struct{ Log string }
		if err := json.Unmarshal(line, &entry); err != nil || entry.Log != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("%s: line %d is %q, %v", l.id, i, line, err)
		}
	}
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
