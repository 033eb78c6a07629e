package supervisor_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// buildFailpoints builds a supervisor that can be told where to die.
var buildFailpoints = sync.OnceValues(func() (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "failpoints")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "failpoints", "-o", dir+"/", "../cmd/supervisor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, said)
	}
	return dir, os.Symlink("../shim", filepath.Join(dir, "shim"))
})

// newFailingStack starts a supervisor that can be told where to die.
func newFailingStack(t *testing.T) *stack {
	t.Helper()
	s := newStack(t)
	s.end(unix.SIGTERM)
	var err error
	if s.bin, err = buildFailpoints(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKilledBetweenAnyTwoSteps kills the supervisor at every point that one life
// of two containers passes. The next one loses nothing and leaves nothing.
func TestKilledBetweenAnyTwoSteps(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	bundles := [2]string{s.bundle("exec sleep 1000"), s.bundle("exit 7")}
	trace := filepath.Join(s.dir, "trace")
	s.env = []string{"ENGINED_FAILPOINT_TRACE=" + trace}
	s.start()
	if err := s.twoLives("whole", bundles); err != nil {
		t.Fatal(err)
	}
	s.end(unix.SIGTERM)
	passages := map[string]int{}
	for _, name := range strings.Fields(read(t, trace)) {
		passages[name]++
	}
	if len(passages) < 20 {
		t.Errorf("only %d points are passed: %v", len(passages), passages)
	}
	for i, name := range slices.Sorted(maps.Keys(passages)) {
		for n := range min(passages[name], size(t, 1, passages[name])) {
			s.killAt(fmt.Sprintf("f%d-%d", i, n), fmt.Sprintf("%s:%d", name, n+1), bundles)
		}
	}
	s.env = nil
	s.start()
}

// killAt begins two lives, lets the supervisor die on the way, and looks at what
// the next one makes of them.
func (s *stack) killAt(prefix, point string, bundles [2]string) {
	s.t.Helper()
	s.env = []string{"ENGINED_FAILPOINT=" + point}
	s.start()
	if err := s.twoLives(prefix, bundles); errdefs.KindOf(err) != errdefs.Unavailable {
		s.t.Errorf("%s: the supervisor did not die: %v", point, err)
	}
	s.awaitKill()
	s.env = nil
	s.start()
	s.cleanAfter(prefix, point)
	s.end(unix.SIGTERM)
}

// awaitKill waits for the supervisor's death by SIGKILL.
func (s *stack) awaitKill() {
	s.t.Helper()
	timer := time.AfterFunc(patience, func() { s.process.Process.Kill() })
	err := s.process.Wait()
	var exit *exec.ExitError
	if !timer.Stop() || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		s.t.Errorf("the supervisor ended by itself: %v", err)
	}
	s.process = nil
}

// twoLives takes a container through everything that is done to one that runs,
// and another through a start of its own and its exit.
func (s *stack) twoLives(prefix string, bundles [2]string) error {
	ctx := s.t.Context()
	first, second := prefix+"-first", prefix+"-second"
	var exit *api.WaitResponse
	for _, step := range []func() error{
		func() error {
			_, err := s.client.CreateContainer(ctx, &api.CreateContainerRequest{Id: first, BundlePath: bundles[0]}, grpc.WaitForReady(true))
			return err
		},
		func() error {
			_, err := s.client.AddProcess(ctx, &api.AddProcessRequest{Id: first, Pid: "p", Args: []string{"sh", "-c", "exit 3"}})
			return err
		},
		func() (err error) { exit, err = s.client.Wait(ctx, &api.WaitRequest{Id: first, Pid: "p"}); return err },
		func() error { return expectStatus(exit, 3) },
		func() error {
			_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: first, Pid: "p"})
			return err
		},
		func() error { return s.turn(first, "paused") },
		func() error { return s.turn(first, "running") },
		func() error {
			_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: first, Force: true})
			return err
		},
		func() error {
			_, err := s.client.CreateContainer(ctx, &api.CreateContainerRequest{Id: second, BundlePath: bundles[1], CreateOnly: true})
			return err
		},
		func() error {
			_, err := s.client.StartContainer(ctx, &api.StartContainerRequest{Id: second})
			return err
		},
		func() (err error) { exit, err = s.client.Wait(ctx, &api.WaitRequest{Id: second}); return err },
		func() error { return expectStatus(exit, 7) },
		func() error {
			_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: second})
			return err
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func expectStatus(answer *api.WaitResponse, status uint32) error {
	if got := answer.GetExit().GetStatus(); got != status {
		return fmt.Errorf("exit status %d, expected %d", got, status)
	}
	return nil
}

func (s *stack) turn(id, status string) error {
	_, err := s.client.UpdateContainer(s.t.Context(), &api.UpdateContainerRequest{Id: id, Status: status})
	return err
}

// cleanAfter expects that what is there can be used and deleted, that nothing
// else is left, and that the events tell each thing once.
func (s *stack) cleanAfter(prefix, point string) {
	t := s.t.(*testing.T)
	t.Helper()
	state, err := s.client.State(t.Context(), &api.StateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range state.Containers {
		if c.Status == "paused" {
			if err := s.turn(c.Id, "running"); err != nil {
				t.Errorf("%s: resuming %s: %v", point, c.Id, err)
			}
		}
		if strings.HasSuffix(c.Id, "second") && c.Status != "created" {
			if exit := s.wait(c.Id, ""); exit.Status != 7 {
				t.Errorf("%s: exit %v", point, exit)
			}
		}
		s.delete(c.Id, true)
	}
	s.settles(t, func() error {
		if left := append(s.leftovers(), s.cgroups()...); len(left) != 1 { // the supervisor itself
			return fmt.Errorf("%s: left over: %q", point, left)
		}
		return nil
	})
	events := s.stored()
	for _, id := range []string{prefix + "-first", prefix + "-second"} {
		created, deleted := count(events, "created "+id), count(events, "delete "+id)
		started, exited := count(events, "start-container "+id+" "), count(events, "exit "+id+" init")
		if created > 1 || deleted != created || started > created || exited > 1 || exited < started {
			t.Errorf("%s: %s was created %d times, started %d, exited %d, deleted %d", point, id, created, started, exited, deleted)
		}
		if added, ended := count(events, "start-process "+id+" p"), count(events, "exit "+id+" p"); added > 1 || ended != added {
			t.Errorf("%s: the process of %s was started %d times and exited %d", point, id, added, ended)
		}
	}
}

// TestRestoreIsKilled: the supervisor that undoes what its predecessor left half
// done may itself be killed on the way.
func TestRestoreIsKilled(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	bundle, fifo := s.bundle("exec sleep 1000"), filepath.Join(s.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, point := range []string{"supervisor-creation-cut-off", "supervisor-container-doomed", "runtime-shim-killed", "runtime-shim-ended", "runtime-directory-renamed"} {
		prefix := fmt.Sprintf("r%d", i)
		s.env = []string{"ENGINED_FAILPOINT=runtime-shim-greeted"}
		s.start()
		// Nobody opens its fifo: the shim has been asked to start it, and cannot.
		_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: prefix + "-first", BundlePath: bundle, Stdout: fifo}, grpc.WaitForReady(true))
		if errdefs.KindOf(err) != errdefs.Unavailable {
			t.Errorf("the supervisor did not die: %v", err)
		}
		s.awaitKill()
		if point == "runtime-shim-killed" { // only what does not answer is killed
			suspend(t, s.anyShim(prefix+"-first"))
		}
		s.env = []string{"ENGINED_FAILPOINT=" + point}
		s.launch(filepath.Join(s.dir, "nobody"))
		s.awaitKill()
		s.env = nil
		s.start()
		s.cleanAfter(prefix, point)
		s.end(unix.SIGTERM)
	}
	s.start()
}

// TestACreationThatCannotBeUndone: its directory stays until somebody can, who may be
// the next to create or delete that id.
func TestACreationThatCannotBeUndone(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	bundle, fifo, refuse := s.bundle("exit 5"), filepath.Join(s.dir, "fifo"), filepath.Join(s.dir, "refuse")
	script := filepath.Join(s.dir, "runtime")
	// With something of the container's in its root, as a runtime that was interrupted has.
	text := fmt.Sprintf("#!/bin/sh\nroot=%s/$(basename $0)\nfor id; do :; done\ncase \" $* \" in *\" delete \"*)\n"+
		"test ! -e %s || { mkdir -p $root/$id; exit 1; }\nrmdir $root/$id 2>/dev/null;; esac\nexec %s \"$@\"\n", filepath.Join(s.dir, "state-runtime"), refuse, s.runtime)
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.WriteFile(script, []byte(text), 0o700)); err != nil {
		t.Fatal(err)
	}
	create := func(id, stdout string) error {
		_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: id, BundlePath: bundle, Runtime: script, Stdout: stdout}, grpc.WaitForReady(true))
		return err
	}
	remove := func(id string) error {
		_, err := s.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: id, Force: true})
		return err
	}
	for _, id := range []string{"created", "deleted", "restarted"} {
		s.env = []string{"ENGINED_FAILPOINT=runtime-shim-greeted"}
		s.start()
		if err := create(id, fifo); errdefs.KindOf(err) != errdefs.Unavailable { // nobody opens the fifo
			t.Errorf("the supervisor did not die: %v", err)
		}
		s.awaitKill()
		if err := os.WriteFile(refuse, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.env = nil
		s.start()
		for what, err := range map[string]error{"create": create(id, ""), "delete": remove(id)} {
			if err == nil || errdefs.CodeOf(err) == errdefs.NoSuchContainer || !strings.Contains(err.Error(), "earlier creation") {
				t.Errorf("%s of what cannot be ended: %v", what, err)
			}
		}
		if err := os.Remove(refuse); err != nil {
			t.Fatal(err)
		}
		switch id {
		case "created":
			if err := create(id, ""); err != nil {
				t.Error(err)
			}
			s.wait(id, "")
			s.delete(id, false)
		case "deleted":
			if err := remove(id); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
				t.Error(err)
			}
		case "restarted":
			s.end(unix.SIGKILL)
			s.start()
		}
		s.settles(t, func() error {
			if left := append(s.leftovers(), s.cgroups()...); len(left) != 1 { // the supervisor itself
				return fmt.Errorf("%s: left over: %q", id, left)
			}
			return nil
		})
		s.end(unix.SIGTERM)
	}
	s.start()
}

// anyShim returns the pid of a container's shim from its directory.
func (s *stack) anyShim(id string) (pid int) {
	s.t.Helper()
	if _, err := fmt.Sscanf(read(s.t, filepath.Join(s.stateDir(), id, "shim.json")), `{"pid":%d`, &pid); err != nil {
		s.t.Fatal(err)
	}
	return pid
}
