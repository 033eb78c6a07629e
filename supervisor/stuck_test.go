package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// suspend stops a process and waits until each of its threads has stopped: one
// that runs on another processor goes on for a moment after the signal is sent.
func suspend(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(patience)
	for !suspended(t, pid) {
		if time.Now().After(late) {
			t.Fatalf("process %d does not stop", pid)
		}
		time.Sleep(time.Millisecond) // nothing tells when a thread stops, but wait4 its parent
	}
}

func suspended(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d has %d threads: %v", pid, len(tasks), err)
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, state, _ := strings.Cut(string(data), ") "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// calls are all that go to a container's shim or to its neighbours.
func (s *stack) calls(ctx context.Context, id string) map[string]func() error {
	added := fmt.Sprint("p", time.Now().UnixNano())
	return map[string]func() error{
		"State": func() error {
			_, err := s.client.State(ctx, &api.StateRequest{})
			return err
		},
		"State of it": func() error {
			_, err := s.client.State(ctx, &api.StateRequest{Id: id})
			return err
		},
		"UpdateProcess": func() error {
			_, err := s.client.UpdateProcess(ctx, &api.UpdateProcessRequest{Id: id, CloseStdin: true})
			return err
		},
		"Signal": func() error {
			_, err := s.client.Signal(ctx, &api.SignalRequest{Id: id, Signal: uint32(unix.SIGCONT)})
			return err
		},
		"AddProcess": func() error {
			_, err := s.client.AddProcess(ctx, &api.AddProcessRequest{Id: id, Pid: added, Args: []string{"true"}})
			return err
		},
		"DeleteContainer": func() error {
			_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: id, Pid: added})
			return err
		},
	}
}

// TestStoppedShimDelaysNobodyElse: while one shim is stopped, calls to others
// are answered as ever, and calls to it end with an error that names it.
func TestStoppedShimDelaysNobodyElse(t *testing.T) {
	t.Parallel() // much of it is waiting
	withEachShim(t, func(t *testing.T, s *stack) {
		flags := s.flags
		stuck := s.run("stuck", "exec sleep 1000")
		s.run("other", "exec sleep 1000")
		s.restart(append(slices.Clone(flags), "--start-timeout", "2s")...) // of what does not start
		shim := int(stuck.ShimPid)
		suspend(t, shim)
		defer unix.Kill(shim, unix.SIGCONT)
		answers := s.askStuck("Signal", "UpdateProcess", "AddProcess")
		var took []time.Duration
		for range size(t, 20, 200) {
			for name, call := range s.calls(t.Context(), "other") {
				if name == "DeleteContainer" || name == "AddProcess" {
					continue // a process's start takes its own time
				}
				began := time.Now()
				if err := call(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				took = append(took, time.Since(began))
			}
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		t.Logf("%d calls beside a stuck shim: median %v, p99 %v, at most %v", len(took), took[len(took)/2], p99, took[len(took)-1])
		if p99 > runtime.DefaultLimits.Shim { // as long as a stuck shim is waited for
			t.Errorf("calls beside a stuck shim took %v", p99)
		}
		for range 3 {
			answer := <-answers
			if code, subject := errdefs.CodeAndSubject(answer.err); code != errdefs.ShimStuck || subject != "stuck" || errdefs.KindOf(answer.err) != errdefs.Unavailable {
				t.Errorf("%s of the stuck container: %v", answer.call, answer.err)
			}
		}
		s.flags = flags
		s.restartBesideStuck()
		s.addAndForget("other")
		s.delete("other", true)
		if err := unix.Kill(shim, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "stuck", Signal: 9}); err != nil {
			t.Error(err)
		}
		s.wait("stuck", "")
	})
}

type stuckAnswer struct {
	call string
	err  error
}

// askStuck calls container stuck, whose answers come in any order.
func (s *stack) askStuck(names ...string) <-chan stuckAnswer {
	answers := make(chan stuckAnswer, len(names))
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	s.t.Cleanup(cancel)
	calls := s.calls(ctx, "stuck")
	for _, name := range names {
		go func() { answers <- stuckAnswer{name, calls[name]()} }()
	}
	return answers
}

// addAndForget adds a process and forgets it.
func (s *stack) addAndForget(id string) {
	s.t.Helper()
	if _, err := s.client.AddProcess(s.t.Context(), &api.AddProcessRequest{Id: id, Pid: "added", Args: []string{"true"}}); err != nil {
		s.t.Error(err)
		return
	}
	s.wait(id, "added")
	if _, err := s.client.DeleteContainer(s.t.Context(), &api.DeleteContainerRequest{Id: id, Pid: "added"}); err != nil {
		s.t.Error(err)
	}
}

// restartBesideStuck: a restart waits for a stuck shim no more than anything
// else does.
func (s *stack) restartBesideStuck() {
	s.t.Helper()
	s.end(unix.SIGKILL)
	began := time.Now()
	s.start()
	if took := time.Since(began); took > runtime.DefaultLimits.Shim {
		s.t.Errorf("a restart beside a stuck shim took %v", took)
	}
}

func TestStuckShimIsDeletedByForce(t *testing.T) {
	t.Parallel() // much of it is waiting
	withEachShim(t, func(t *testing.T, s *stack) {
		c := s.run("a", "exec sleep 1000")
		suspend(t, int(c.ShimPid))
		answer, err := s.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "a", Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Exit.GetStatus() != 137 {
			t.Errorf("exit %v", answer.Exit)
		}
		gone(t, int(c.ShimPid))
		gone(t, int(c.Processes[0].SystemPid))
	})
}
