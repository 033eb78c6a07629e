package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// follower collects events for as long as a test runs.
type follower struct {
	mu     sync.Mutex // guards what follows
	events []string
	grown  chan struct{}
	done   chan struct{}
}

func (s *stack) follow() *follower {
	f := &follower{grown: make(chan struct{}), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	state, err := s.client.State(s.t.Context(), &api.StateRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(f.done)
		for event, err := range s.client.EventsAfter(ctx, state.Seq) {
			if err != nil {
				return
			}
			f.mu.Lock()
			f.events = append(f.events, line(event))
			close(f.grown)
			f.grown = make(chan struct{})
			f.mu.Unlock()
		}
	}()
	s.t.Cleanup(func() { cancel(); <-f.done })
	return f
}

// until waits until enough holds of the events.
func (f *follower) until(t *testing.T, what string, enough func([]string) bool) []string {
	t.Helper()
	late := time.After(patience)
	for {
		f.mu.Lock()
		events, grown := slices.Clone(f.events), f.grown
		f.mu.Unlock()
		if enough(events) {
			return events
		}
		select {
		case <-grown:
		case <-late:
			t.Fatalf("no %s among %q", what, events)
		}
	}
}

func count(events []string, prefix string) (n int) {
	for _, event := range events {
		if strings.HasPrefix(event, prefix) {
			n++
		}
	}
	return n
}

func TestEveryExitArrivesOnceAcrossKillsOfTheSupervisor(t *testing.T) {
	t.Parallel()
	withEachShim(t, func(t *testing.T, s *stack) {
		f := s.follow()
		const containers, kills = 12, 4
		for i := range containers {
			s.run(fmt.Sprintf("c%d", i), fmt.Sprintf("sleep 0.%d; exit %d", 3*i+1, i))
		}
		for range kills {
			s.end(unix.SIGKILL)
			time.Sleep(20 * time.Millisecond) // nobody is there meanwhile
			s.start()
		}
		f.until(t, "all exits", func(events []string) bool { return count(events, "exit") >= containers })
		s.end(unix.SIGKILL)
		s.start()
		for i := range containers {
			id := fmt.Sprintf("c%d", i)
			if exit := s.wait(id, ""); exit.Status != uint32(i) {
				t.Errorf("%s: %v", id, exit)
			}
			s.delete(id, false)
		}
		events := f.until(t, "all deletes", func(events []string) bool { return count(events, "delete") >= containers })
		for i := range containers {
			for _, want := range []string{fmt.Sprintf("created c%d", i), fmt.Sprintf("start-container c%d init", i),
				strings.TrimSuffix(fmt.Sprintf("exit c%d init %d", i, i), " 0"), fmt.Sprintf("delete c%d", i)} {
				n := 0
				for _, event := range events {
					if event == want {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%q came %d times: %q", want, n, events)
				}
			}
		}
		if len(events) != 4*containers {
			t.Errorf("%d events: %q", len(events), events)
		}
	})
}

func TestAddedProcessesSurviveAKillOfTheSupervisor(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		f := s.follow()
		s.run("a", "exec sleep 1000")
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "p", Args: []string{"sh", "-c", "sleep 0.3; exit 9"}}); err != nil {
			t.Fatal(err)
		}
		s.end(unix.SIGKILL)
		s.start()
		if exit := s.wait("a", "p"); exit.Status != 9 {
			t.Errorf("exit %v", exit)
		}
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "q", Args: []string{"true"}}); err != nil {
			t.Error(err)
		}
		s.wait("a", "q")
		events := f.until(t, "exit of q", func(events []string) bool { return count(events, "exit a q") == 1 })
		want := []string{"created a", "start-container a init", "start-process a p", "exit a p 9", "start-process a q", "exit a q"}
		if !slices.Equal(events, want) {
			t.Errorf("events %q", events)
		}
	})
}

func TestKilledShimEndsItsContainer(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		for _, restarted := range []bool{false, true} {
			id := fmt.Sprintf("restarted-%v", restarted)
			script := "exec sleep 1000"
			if !s.fake { // a pretended shim leaves what it does not know
				script = "sleep 1000 & sleep 1001"
			}
			c := s.run(id, script)
			added, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: id, Pid: "p", Args: []string{"sleep", "1002"}})
			if err != nil {
				t.Fatal(err)
			}
			if restarted {
				s.end(unix.SIGKILL)
				s.start()
			}
			if err := unix.Kill(int(c.ShimPid), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if restarted {
				reap(t, int(c.ShimPid), int(added.SystemPid), int(c.Processes[0].SystemPid))
			}
			for _, pid := range []string{"init", "p"} {
				if exit := s.wait(id, pid); exit.Status != 137 || exit.Reason == "" {
					t.Errorf("%s: exit of %s %v", id, pid, exit)
				}
			}
			for _, p := range c.Processes {
				gone(t, int(p.SystemPid))
			}
			if state := s.state(id); state.Status != "stopped" || state.ShimPid != 0 {
				t.Errorf("%s: state %v", id, state)
			}
			if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: id, Pid: "q", Args: []string{"true"}}); errdefs.CodeOf(err) != errdefs.NotRunning {
				t.Errorf("%s: a process in what has stopped: %v", id, err)
			}
			s.delete(id, false)
		}
	})
}

func TestShimKilledWhileNobodyWatched(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		f := s.follow()
		c := s.run("a", "exec sleep 1000")
		s.end(unix.SIGKILL)
		if err := unix.Kill(int(c.ShimPid), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.start()
		if exit := s.wait("a", ""); exit.Status != 137 || exit.Reason == "" {
			t.Errorf("exit %v", exit)
		}
		s.delete("a", false)
		events := f.until(t, "delete", func(events []string) bool { return count(events, "delete") == 1 })
		if count(events, "exit") != 1 {
			t.Errorf("events %q", events)
		}
	})
}

// reap is what a good init does with the orphans of a supervisor and its shims,
// in the order in which they die. The test is their init: how soon the machine's
// one comes to it is not ours.
func reap(t *testing.T, pids ...int) {
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		for _, pid := range pids {
			unix.Wait4(pid, nil, 0, nil)
		}
	}()
	t.Cleanup(func() { <-reaped })
}

// gone fails the test unless the process is dead or soon will be.
func gone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := 0, error(unix.EINTR) // by the Go runtime's own signals
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll(polled, int(patience.Milliseconds()))
	}
	if n != 1 || err != nil {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		t.Errorf("process %d lives on: %s", pid, status)
	}
}

func TestForeignDirectoriesAreSkipped(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("good", "exec sleep 1000")
		s.run("bad", "exec sleep 1000")
		bad := filepath.Join(s.stateDir(), "bad", "container.json")
		whole, err := os.ReadFile(bad)
		if err != nil {
			t.Fatal(err)
		}
		s.end(unix.SIGKILL)
		foreign := []string{"foreign/file", "unborn/init/request.json", "not a container/x"}
		for _, path := range foreign {
			path = filepath.Join(s.stateDir(), path)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(filepath.Join(s.stateDir(), "file"), nil, 0o600), os.WriteFile(bad, whole[:len(whole)/2], 0o600)); err != nil {
			t.Fatal(err)
		}
		s.start()
		state, err := s.client.State(t.Context(), &api.StateRequest{})
		if err != nil || len(state.Containers) != 1 || state.Containers[0].Id != "good" {
			t.Errorf("%v, %v", state, err)
		}
		for _, reported := range []string{"container=bad", "container=foreign", `container="not a container"`} {
			if !strings.Contains(s.logged(), reported) {
				t.Errorf("%s is not reported", reported)
			}
		}
		if _, err := os.Stat(filepath.Join(s.stateDir(), "unborn")); !errors.Is(err, os.ErrNotExist) {
			t.Error("what was never started is still there")
		}
		// Mended, the container is back.
		s.end(unix.SIGKILL)
		if err := os.WriteFile(bad, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"foreign", "not a container", "file"} {
			os.RemoveAll(filepath.Join(s.stateDir(), name))
		}
		s.start()
		s.delete("bad", true)
		s.delete("good", true)
	})
}

// TestAProcessMayHaveAnyName: none is taken for a file of the container's directory.
func TestAProcessMayHaveAnyName(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		c := s.run("a", "exec sleep 1000")
		if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "doomed", Args: []string{"sleep", "1000"}}); err != nil {
			t.Fatal(err)
		}
		s.end(unix.SIGKILL)
		s.start()
		if status := s.state("a").Status; status != "running" {
			t.Errorf("after the restart: %s", status)
		}
		if err := unix.Kill(int(c.Processes[0].SystemPid), 0); err != nil {
			t.Errorf("the container: %v", err)
		}
	})
}

func TestTermLeavesContainersRunning(t *testing.T) {
	withEachShim(t, func(t *testing.T, s *stack) {
		c := s.run("a", "exec sleep 1000")
		stream, err := s.client.Events(t.Context(), &api.EventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
		s.end(unix.SIGTERM)
		if err := unix.Kill(int(c.Processes[0].SystemPid), 0); err != nil {
			t.Errorf("the container: %v", err)
		}
		s.start()
		if status := s.state("a").Status; status != "running" {
			t.Errorf("after the restart: %s", status)
		}
	})
}

// TestRestartBesideARuntimeThatHangs: a created container's runtime is asked whether it
// was started, and nobody else waits for the answer.
func TestRestartBesideARuntimeThatHangs(t *testing.T) {
	t.Parallel() // much of it is waiting
	s := newStack(t)
	script, hang := filepath.Join(s.dir, "runtime"), filepath.Join(s.dir, "hang")
	text := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *\" state \"*) while [ -e %s ]; do sleep 0.05; done;; esac\nexec %s \"$@\"\n", hang, s.runtime)
	if err := errors.Join(os.WriteFile(script, []byte(text), 0o700), os.WriteFile(hang, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "created", BundlePath: s.bundle("exit 4"), Runtime: script, CreateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	s.run("other", "exec sleep 1000")
	s.end(unix.SIGKILL)
	began := time.Now()
	s.start()
	if took := time.Since(began); took > runtime.DefaultLimits.Runtime/2 {
		t.Errorf("the restart took %v", took)
	}
	for id, want := range map[string]string{"created": "created", "other": "running"} {
		if status := s.state(id).Status; status != want {
			t.Errorf("%s is %s", id, status)
		}
	}
	if err := os.Remove(hang); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.StartContainer(t.Context(), &api.StartContainerRequest{Id: "created"}); err != nil {
		t.Fatal(err)
	}
	if exit := s.wait("created", ""); exit.Status != 4 {
		t.Errorf("%v", exit)
	}
}

func TestSecondSupervisorIsRefused(t *testing.T) {
	s := newStack(t)
	first := s.process
	out, err := runSupervisor(s, "--listen", "unix://"+s.dir+"/second.sock", "--state-dir", s.stateDir())
	if err == nil || !strings.Contains(out, "another supervisor") {
		t.Errorf("same state directory: %v\n%s", err, out)
	}
	out, err = runSupervisor(s, "--listen", s.address(), "--state-dir", filepath.Join(s.dir, "other"))
	if err == nil || !strings.Contains(out, "somebody serves") {
		t.Errorf("same socket: %v\n%s", err, out)
	}
	out, err = runSupervisor(s, "--listen", "tcp://0.0.0.0:0", "--state-dir", filepath.Join(s.dir, "other"))
	if err == nil || !strings.Contains(out, "loopback") {
		t.Errorf("a public address: %v\n%s", err, out)
	}
	if s.process != first {
		t.Fatal("the test lost its supervisor")
	}
}

// TestAChildOfAKilledSupervisorHoldsUpNothing: what was forked when the supervisor
// was killed has its lock and its socket until it execs.
func TestAChildOfAKilledSupervisorHoldsUpNothing(t *testing.T) {
	s := newStack(t)
	pid := s.process.Process.Pid
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	held := 0
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		number, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err != nil {
			continue // it was closed meanwhile
		}
		target, _ := os.Readlink(link)
		listens, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if target != s.stateDir()+"/.lock" && listens == 0 {
			unix.Close(fd)
			continue
		}
		defer unix.Close(fd)
		held++
	}
	if held != 2 {
		t.Fatalf("%d descriptors of lock and socket, expected 2", held)
	}
	s.end(unix.SIGKILL)
	s.start()
}

func TestFifoThatNobodyOpens(t *testing.T) {
	s := newStack(t, "--start-timeout", "1s")
	fifo := filepath.Join(s.dir, "stdout")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle("echo hello"), Stdout: fifo})
	if errdefs.KindOf(err) != errdefs.DeadlineExceeded {
		t.Errorf("kind %q: %v", errdefs.KindOf(err), err)
	}
	if left := s.leftovers(); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	s.restart()
	// Both ends are open here: what is written stays until it is read.
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle("echo hello"), Stdout: fifo}); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 16)
	if n, err := reader.Read(said); err != nil || string(said[:n]) != "hello\n" {
		t.Errorf("read %q, %v", said[:n], err)
	}
}
