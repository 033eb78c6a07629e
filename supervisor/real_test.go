package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

func TestContainerRunsAndItsExitIsReported(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		for _, test := range []struct {
			id, script string
			status     uint32
			signal     uint32
		}{
			{"zero", "true", 0, 0},
			{"seven", "exit 7", 7, 0},
			{"child", "sh -c 'kill -9 $$'; exit $?", 137, 0},
		} {
			c := s.run(test.id, test.script)
			if c.Id != test.id || len(c.Processes) != 1 || c.Processes[0].Pid != "init" || c.ShimPid == 0 || c.ShimSocket == "" {
				t.Errorf("%s: created as %v", test.id, c)
			}
			exit := s.wait(test.id, "")
			if exit.Status != test.status || exit.Signal != test.signal || time.Since(exit.ExitedAt.AsTime()) > patience {
				t.Errorf("%s: exit %v", test.id, exit)
			}
			if state := s.state(test.id); state.Status != "stopped" || state.Processes[0].Exit.GetStatus() != test.status {
				t.Errorf("%s: state %v", test.id, state)
			}
			s.delete(test.id, false)
		}
		want := []string{"created seven", "start-container seven init", "exit seven init 7", "delete seven"}
		got := slices.DeleteFunc(s.stored(), func(event string) bool { return !strings.Contains(event, "seven") })
		if !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
	})
}

func TestSignalEndsAContainer(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("a", "exec sleep 1000")
		state := s.state("a")
		if state.Status != "running" || state.Processes[0].SystemPid == 0 || state.Processes[0].Args[2] != "exec sleep 1000" {
			t.Errorf("state %v", state)
		}
		if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "a", Signal: 9}); err != nil {
			t.Fatal(err)
		}
		if exit := s.wait("a", "init"); exit.Status != 137 || exit.Signal != 9 {
			t.Errorf("exit %v", exit)
		}
		_, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "a", Signal: 9})
		if errdefs.CodeOf(err) != errdefs.NotRunning {
			t.Errorf("signal after the exit: %v", err)
		}
		if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "b", Signal: 9}); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
			t.Errorf("signal to nobody: %v", err)
		}
		s.delete("a", false)
	})
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	s := newStack(t)
	good := s.bundle("exec sleep 1000")
	empty := filepath.Join(s.dir, "bundle-empty")
	broken := filepath.Join(s.dir, "bundle-broken")
	os.Mkdir(empty, 0o700)
	os.Mkdir(broken, 0o700)
	os.WriteFile(filepath.Join(broken, "config.json"), []byte(`{"process": 7}`), 0o600)
	nothing := s.bundle("")
	config, _ := os.ReadFile(filepath.Join(nothing, "config.json"))
	os.WriteFile(filepath.Join(nothing, "config.json"), []byte(strings.Replace(string(config), `"sh"`, `"no-such-command"`, 1)), 0o600)
	for name, test := range map[string]struct {
		request *api.CreateContainerRequest
		kind    errdefs.Kind
		code    errdefs.Code
	}{
		"no config.json":  {&api.CreateContainerRequest{Id: "x", BundlePath: empty}, errdefs.InvalidArgument, errdefs.BundleInvalid},
		"bad config.json": {&api.CreateContainerRequest{Id: "x", BundlePath: broken}, errdefs.InvalidArgument, errdefs.BundleInvalid},
		"no runtime":      {&api.CreateContainerRequest{Id: "x", BundlePath: good, Runtime: "no-such-runtime"}, errdefs.InvalidArgument, errdefs.RuntimeMissing},
		"no command":      {&api.CreateContainerRequest{Id: "x", BundlePath: nothing}, "", errdefs.ExecNotFound},
	} {
		_, err := s.client.CreateContainer(t.Context(), test.request)
		if err == nil || errdefs.CodeOf(err) != test.code || (test.kind != "" && errdefs.KindOf(err) != test.kind) {
			t.Errorf("%s: kind %q, code %q: %v", name, errdefs.KindOf(err), errdefs.CodeOf(err), err)
		}
		if left := s.leftovers(); len(left) != 1 { // the supervisor itself
			t.Errorf("%s: left over: %v", name, left)
		}
	}
	s.run("x", "exec sleep 1000")
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "x", BundlePath: good}); errdefs.KindOf(err) != errdefs.AlreadyExists {
		t.Errorf("a second x: %v", err)
	}
	if _, err := s.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "x"}); errdefs.CodeOf(err) != errdefs.Running {
		t.Errorf("deleting what runs: %v", err)
	}
	s.delete("x", true)
	want := []string{"created x", "start-container x init", "exit x init 137", "delete x"}
	if got := s.stored(); !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
}

// TestFullDiskOfALog: the container goes on, each line is in the log or counted as
// lost, and that is said.
func TestFullDiskOfALog(t *testing.T) {
	s := newStack(t)
	disk := filepath.Join(s.dir, "disk")
	if err := errors.Join(os.Mkdir(disk, 0o700), unix.Mount("small", disk, "tmpfs", 0, "size=256k")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	const lines = 20000
	path := filepath.Join(disk, "log")
	_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{
		Id: "a", BundlePath: s.bundle(fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done; exit 3", lines)),
		Log: &api.LogSpec{Driver: "json-file", Path: path},
	})
	if err != nil {
		t.Fatal(err)
	}
	exit := s.wait("a", "")
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if kept := int64(bytes.Count(log, []byte("\n"))); exit.Status != 3 || kept == 0 || exit.LogLost == 0 || kept+exit.LogLost != lines {
		t.Errorf("%d lines are kept of %d, %v", kept, lines, exit)
	}
	s.settles(t, func() error {
		if !strings.Contains(s.logged(), "log lines are lost") {
			return errors.New("the supervisor does not say it")
		}
		return nil
	})
}

func TestManyContainersStartTogether(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		const many = 50
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				id := fmt.Sprintf("c%d", i)
				s.run(id, fmt.Sprintf("exit %d", i))
				if exit := s.wait(id, ""); exit.Status != uint32(i) {
					t.Errorf("%s: exit %v", id, exit)
				}
				s.delete(id, false)
			})
		}
		all.Wait()
		if got := s.stored(); len(got) != 4*many {
			t.Errorf("%d events: %q", len(got), got)
		}
	})
}

func TestAddedProcesses(t *testing.T) {
	s := newStack(t)
	s.run("a", "exec sleep 1000")
	add := func(request *api.AddProcessRequest) error {
		request.Id = "a"
		_, err := s.client.AddProcess(t.Context(), request)
		return err
	}
	for _, test := range []struct {
		pid, script string
		status      uint32
	}{
		{"fine", "true", 0}, {"three", "exit 3", 3},
		{"env", `test "$FROM" = bundle`, 0}, // the container's environment
	} {
		if err := add(&api.AddProcessRequest{Pid: test.pid, Args: []string{"sh", "-c", test.script}}); err != nil {
			t.Fatal(err)
		}
		if exit := s.wait("a", test.pid); exit.Status != test.status {
			t.Errorf("%s: %v", test.pid, exit)
		}
	}
	if err := add(&api.AddProcessRequest{Pid: "user", User: &api.User{Uid: 65534}, Args: []string{"sh", "-c", `test "$(id -u)" = 65534`}}); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait("a", "user"); exit.Status != 0 {
		t.Errorf("as another user: %v", exit)
	}
	if err := add(&api.AddProcessRequest{Pid: "three", Args: []string{"true"}}); errdefs.CodeOf(err) != errdefs.NameTaken {
		t.Errorf("the name of an exited process: %v", err)
	}
	if _, err := s.client.DeleteContainer(t.Context(), &api.DeleteContainerRequest{Id: "a", Pid: "three"}); err != nil {
		t.Fatal(err)
	}
	if err := add(&api.AddProcessRequest{Pid: "three", Args: []string{"sh", "-c", "exit 4"}}); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait("a", "three"); exit.Status != 4 {
		t.Errorf("a name used again: %v", exit)
	}
	if err := add(&api.AddProcessRequest{Pid: "none", Args: []string{"no-such-command"}}); errdefs.CodeOf(err) != errdefs.ExecNotFound {
		t.Errorf("no such command: code %q: %v", errdefs.CodeOf(err), err)
	}
	if err := add(&api.AddProcessRequest{Pid: "none", Args: []string{"true"}}); err != nil {
		t.Errorf("the name of a process that failed: %v", err)
	}
	s.wait("a", "none")
	if err := add(&api.AddProcessRequest{Pid: "long", Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "a", Pid: "long", Signal: 15}); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait("a", "long"); exit.Status != 143 || exit.Signal != 15 {
		t.Errorf("a process that was ended: %v", exit)
	}
	s.delete("a", true)
	if err := add(&api.AddProcessRequest{Pid: "late", Args: []string{"true"}}); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("in a deleted container: %v", err)
	}
}

func TestManyAddedProcessesLeaveNoTrace(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("a", "exec sleep 1000")
		for i := range 100 {
			pid := fmt.Sprintf("p%d", i)
			if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: pid, Args: []string{"true"}}); err != nil {
				t.Fatal(err)
			}
			s.wait("a", pid)
		}
		s.settles(t, func() error { // the oldest are forgotten in passing
			entries, err := os.ReadDir(filepath.Join(s.stateDir(), "a"))
			if kept := len(s.state("a").Processes); kept > 80 || len(entries) > 90 || err != nil {
				return fmt.Errorf("%d processes and %d entries are kept, %w", kept, len(entries), err)
			}
			return nil
		})
	})
}

func TestCreateThenStart(t *testing.T) {
	s := newStack(t)
	answer, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle("exit 5"), CreateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Container.Status != "created" {
		t.Errorf("created as %v", answer.Container)
	}
	s.end(unix.SIGKILL)
	s.start()
	if status := s.state("a").Status; status != "created" {
		t.Errorf("after a restart: %s", status)
	}
	started, err := s.client.StartContainer(t.Context(), &api.StartContainerRequest{Id: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if status := started.Container.Status; status != "running" && status != "stopped" {
		t.Errorf("started as %v", started.Container)
	}
	if exit := s.wait("a", ""); exit.Status != 5 {
		t.Errorf("exit %v", exit)
	}
	if _, err := s.client.StartContainer(t.Context(), &api.StartContainerRequest{Id: "a"}); errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("a second start: %v", err)
	}
	want := []string{"created a", "start-container a init", "exit a init 5"}
	if got := s.stored(); !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
}

func TestPauseResumeUpdate(t *testing.T) {
	s := newStack(t)
	s.run("a", "while :; do sleep 1; done")
	update := func(request *api.UpdateContainerRequest) error {
		request.Id = "a"
		_, err := s.client.UpdateContainer(t.Context(), request)
		return err
	}
	if err := update(&api.UpdateContainerRequest{Status: "paused"}); err != nil {
		t.Fatal(err)
	}
	if err := update(&api.UpdateContainerRequest{Status: "paused"}); errdefs.CodeOf(err) != errdefs.Paused {
		t.Errorf("pausing twice: %v", err)
	}
	if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "p", Args: []string{"true"}}); errdefs.CodeOf(err) != errdefs.Paused {
		t.Errorf("a process in a paused container: %v", err)
	}
	s.end(unix.SIGKILL)
	s.start()
	if status := s.state("a").Status; status != "paused" {
		t.Errorf("after a restart: %s", status)
	}
	if err := update(&api.UpdateContainerRequest{Status: "running"}); err != nil {
		t.Fatal(err)
	}
	if err := update(&api.UpdateContainerRequest{Resources: &api.UpdateResource{MemoryLimit: 64 << 20}}); err != nil {
		t.Fatal(err)
	}
	if limit := cgroupValue(t, int(s.state("a").Processes[0].SystemPid), "memory", "memory.limit_in_bytes", "memory.max"); limit != fmt.Sprint(64<<20) {
		t.Errorf("memory limit %s", limit)
	}
	if err := update(&api.UpdateContainerRequest{Status: "paused"}); err != nil {
		t.Fatal(err)
	}
	s.delete("a", true)
	want := []string{"created a", "start-container a init", "pause a", "resume a", "update a", "pause a", "exit a init 137", "delete a"}
	if got := s.stored(); !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
}

// cgroupValue reads a file of the process's cgroup.
func cgroupValue(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range strings.Fields(string(lines)) {
		fields := strings.SplitN(entry, ":", 3)
		path := filepath.Join("/sys/fs/cgroup", fields[2], v2)
		if slices.Contains(strings.Split(fields[1], ","), controller) {
			path = filepath.Join("/sys/fs/cgroup", controller, fields[2], v1)
		} else if fields[1] != "" {
			continue
		}
		if value, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(value))
		}
	}
	t.Fatalf("no %s in %s", v1, lines)
	return ""
}

func TestClientThatGoesAwayDoesNotStopACreate(t *testing.T) {
	s := newStack(t)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.client.Events(t.Context(), &api.EventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Header(); err != nil {
		t.Fatal(err)
	}
	go func() {
		// Gone as soon as the container's directory is there.
		for late := time.Now().Add(patience); time.Now().Before(late); {
			if _, err := os.Stat(filepath.Join(s.stateDir(), "a", "container.json")); err == nil {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		cancel()
	}()
	_, err = s.client.CreateContainer(ctx, &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle("exit 3")})
	if err != nil && errdefs.KindOf(err) != errdefs.Canceled {
		t.Fatal(err)
	}
	for _, want := range []string{"created a", "start-container a init", "exit a init 3"} {
		event, err := events.Recv()
		if err != nil || line(event) != want {
			t.Fatalf("event %v, %v, want %s", event, err, want)
		}
	}
}
