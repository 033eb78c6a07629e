package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// addP asks for a process that runs on.
func (s *stack) addP(t *testing.T) error {
	_, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "a", Pid: "p", Args: []string{"sleep", "1000"}})
	return err
}

// TestAProcessThatTheShimWasNotAskedFor: its name is free after the restart.
func TestAProcessThatTheShimWasNotAskedFor(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	s.start()
	s.run("a", "exec sleep 1000")
	for _, point := range []string{"runtime-process-laid", "runtime-process-written"} {
		s.end(unix.SIGTERM)
		s.env = []string{"ENGINED_FAILPOINT=" + point}
		s.start()
		if err := s.addP(t); errdefs.KindOf(err) != errdefs.Unavailable {
			t.Errorf("%s: the supervisor did not die: %v", point, err)
		}
		s.awaitKill()
		s.env = nil
		s.start()
		s.exec("exit 3", 3)
		if err := s.forget(); err != nil {
			t.Errorf("%s: %v", point, err)
		}
	}
	if events := s.stored(); count(events, "start-process") != 2 || count(events, "exit") != 2 {
		t.Errorf("events %q", events)
	}
}

// TestAProcessWhoseStartOutlivesTheSupervisor: the next one finds out how it has ended.
func TestAProcessWhoseStartOutlivesTheSupervisor(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails %v", fails), func(t *testing.T) {
			s := newStack(t)
			wrapper, begun, slow, refuse := filepath.Join(s.dir, "runtime"), filepath.Join(s.dir, "begun"), filepath.Join(s.dir, "slow"), filepath.Join(s.dir, "refuse")
			text := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *\" exec \"*) touch %s; while [ -e %s ]; do sleep 0.02; done; test ! -e %s || exit 1;; esac\nexec %s \"$@\"\n",
				begun, slow, refuse, s.runtime)
			if err := errors.Join(os.WriteFile(wrapper, []byte(text), 0o700), os.WriteFile(slow, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle("exec sleep 1000"), Runtime: wrapper})
			if err != nil {
				t.Fatal(err)
			}
			answer := make(chan error, 1)
			go func() { answer <- s.addP(t) }()
			s.settles(t, func() error { _, err := os.Stat(begun); return err })
			s.end(unix.SIGKILL)
			if err := <-answer; err == nil {
				t.Error("the process has been added")
			}
			if fails {
				if err := os.WriteFile(refuse, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s.start()
			if err := s.addP(t); errdefs.CodeOf(err) != errdefs.NameTaken {
				t.Errorf("a name that is in use: %v", err)
			}
			waited := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() {
				_, err := s.client.Wait(ctx, &api.WaitRequest{Id: "a", Pid: "p"})
				waited <- err
			}()
			if err := os.Remove(slow); err != nil {
				t.Fatal(err)
			}
			if !fails {
				s.settles(t, func() error {
					if events := s.stored(); count(events, "start-process a p") != 1 {
						return fmt.Errorf("no start among %q", events)
					}
					return nil
				})
				if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "a", Pid: "p", Signal: 9}); err != nil {
					t.Error(err)
				}
				if err := <-waited; err != nil {
					t.Error(err)
				}
				return
			}
			if err := <-waited; errdefs.CodeOf(err) != errdefs.NoSuchExec {
				t.Errorf("waiting for what has not started: %v", err)
			}
			if err := os.Remove(refuse); err != nil {
				t.Fatal(err)
			}
			s.exec("exit 3", 3)
		})
	}
}
