package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// exec adds process p to container a, and waits for its end.
func (s *stack) exec(script string, status uint32) {
	s.t.Helper()
	_, err := s.client.AddProcess(s.t.Context(), &api.AddProcessRequest{Id: "a", Pid: "p", Args: []string{"sh", "-c", script}})
	if err != nil {
		s.t.Fatal(err)
	}
	if exit := s.wait("a", "p"); exit.Status != status {
		s.t.Errorf("%q: %v, expected status %d", script, exit, status)
	}
}

func (s *stack) forget() error {
	_, err := s.client.DeleteContainer(s.t.Context(), &api.DeleteContainerRequest{Id: "a", Pid: "p"})
	return err
}

// TestForgettingIsCutOff: wherever the supervisor is killed while it forgets a
// process, the name can be used again, and the next process of that name has its
// own start and exit.
func TestForgettingIsCutOff(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	s.start()
	s.run("a", "exec sleep 1000")
	for i, point := range []string{"runtime-process-forgotten", "runtime-process-renamed", "supervisor-process-forgotten"} {
		s.end(unix.SIGTERM)
		s.env = []string{"ENGINED_FAILPOINT=" + point}
		s.start()
		s.exec("exit 3", 3)
		if err := s.forget(); errdefs.KindOf(err) != errdefs.Unavailable {
			t.Errorf("%s: the supervisor did not die: %v", point, err)
		}
		s.awaitKill()
		s.env = nil
		s.start()
		if err := s.forget(); err != nil && errdefs.CodeOf(err) != errdefs.NoSuchExec {
			t.Errorf("%s: forgetting what is forgotten: %v", point, err)
		}
		s.exec("exit 4", 4)
		if err := s.forget(); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		events := s.stored()
		if started, exited := count(events, "start-process a p"), count(events, "exit a p"); started != 2*(i+1) || exited != started {
			t.Errorf("%s: %d starts and %d exits are recorded, expected %d", point, started, exited, 2*(i+1))
		}
		if left, _ := filepath.Glob(filepath.Join(s.stateDir(), ".trash*")); len(left) > 0 {
			t.Errorf("%s: left over: %q", point, left)
		}
	}
}

// TestWhatAnOlderSupervisorLeftOfAProcess: it removed a process's directory file by
// file, and made it empty, and may have been killed on the way.
func TestWhatAnOlderSupervisorLeftOfAProcess(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("a", "exec sleep 1000")
		s.exec("exit 3", 3)
		s.end(unix.SIGKILL)
		err := errors.Join(os.Remove(filepath.Join(s.stateDir(), "a/p/exit.json")), os.Mkdir(filepath.Join(s.stateDir(), "a/q"), 0o700))
		if err != nil {
			t.Fatal(err)
		}
		s.start()
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "q", Args: []string{"true"}}); err != nil {
			t.Errorf("a name of which there is an empty directory: %v", err)
		}
		s.wait("a", "q")
		s.delete("a", true)
		if exited := count(s.stored(), "exit a p"); exited != 1 {
			t.Errorf("the exit is recorded %d times", exited)
		}
	})
}

// TestWhatExitedFirstIsForgottenFirst: not what started first.
func TestWhatExitedFirstIsForgottenFirst(t *testing.T) {
	const kept = 64
	s := newFakeStack(t)
	s.run("a", "exec sleep 1000")
	add := func(pid string, args ...string) {
		t.Helper()
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: pid, Args: args, Env: []string{"PATH=/bin:/usr/bin"}}); err != nil {
			t.Fatal(err)
		}
	}
	add("long", "sleep", "1000")
	for i := range kept {
		pid := fmt.Sprint("short", i)
		add(pid, "true")
		s.wait("a", pid)
	}
	if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "a", Pid: "long", Signal: 9}); err != nil {
		t.Fatal(err)
	}
	s.wait("a", "long")
	var names []string
	s.settles(t, func() error {
		names = nil
		for _, p := range s.state("a").Processes {
			names = append(names, p.Pid)
		}
		if len(names) > 1+kept {
			return fmt.Errorf("%d processes are kept", len(names))
		}
		return nil
	})
	if !slices.Contains(names, "long") || slices.Contains(names, "short0") || len(names) != 1+kept {
		t.Errorf("%d are kept: %q", len(names), names)
	}
}
