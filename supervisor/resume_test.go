package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// lateStack has a runtime whose `start` does not end while the file slow is there, and
// whose `state` fails while the file mute is, and container a, which it has created and
// which exits with status 4. A second `start` would fail.
type lateStack struct {
	*stack
	slow, mute, begun string
}

func newLateStack(t *testing.T, script string) *lateStack {
	t.Helper()
	s := newStack(t, "--start-timeout", "1s")
	l := &lateStack{s, filepath.Join(s.dir, "slow"), filepath.Join(s.dir, "mute"), filepath.Join(s.dir, "begun")}
	wrapper := filepath.Join(s.dir, "runtime")
	text := fmt.Sprintf(`#!/bin/sh
case " $* " in
*" start "*) touch %s; while [ -e %s ]; do sleep 0.02; done;;
*" state "*) test ! -e %s || exit 1;;
esac
exec %s "$@"
`, l.begun, l.slow, l.mute, s.runtime)
	if err := errors.Join(os.WriteFile(wrapper, []byte(text), 0o700), os.WriteFile(l.slow, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "a", BundlePath: s.bundle(script), Runtime: wrapper, CreateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lateStack) startContainer() error {
	_, err := l.client.StartContainer(l.t.Context(), &api.StartContainerRequest{Id: "a"})
	return err
}

// killMeanwhile starts the container and kills the supervisor while the runtime is at it.
func (l *lateStack) killMeanwhile(t *testing.T) {
	t.Helper()
	answer := make(chan error, 1)
	go func() { answer <- l.startContainer() }()
	l.settles(t, func() error { _, err := os.Stat(l.begun); return err })
	l.end(unix.SIGKILL)
	if err := <-answer; err == nil {
		t.Error("the start has been answered")
	}
}

func (l *lateStack) expectStatus(t *testing.T, want string) {
	t.Helper()
	l.settles(t, func() error {
		if got := l.state("a").Status; got != want {
			return fmt.Errorf("it is %s, expected %s", got, want)
		}
		return nil
	})
}

func (l *lateStack) expectEvents(t *testing.T, want ...string) {
	t.Helper()
	if events := l.stored(); !slices.Equal(events, want) {
		t.Errorf("events %q, expected %q", events, want)
	}
}

// TestAStartThatTakesTooLongIsRecordedWhenItIsDone: its client has been told that it
// does not answer, and may ask again meanwhile.
func TestAStartThatTakesTooLongIsRecordedWhenItIsDone(t *testing.T) {
	t.Parallel()
	s := newLateStack(t, "exec sleep 1000")
	for range 2 {
		if err := s.startContainer(); errdefs.CodeOf(err) != errdefs.ShimStuck {
			t.Errorf("%v", err)
		}
	}
	s.expectStatus(t, "created")
	if err := os.Remove(s.slow); err != nil {
		t.Fatal(err)
	}
	s.expectStatus(t, "running")
	s.expectEvents(t, "created a", "start-container a init")
	if err := s.startContainer(); errdefs.CodeOf(err) != errdefs.AlreadyStarted {
		t.Errorf("%v", err)
	}
}

// TestAStartThatOutlivesItsSupervisor: the next one records it when the runtime has done it.
func TestAStartThatOutlivesItsSupervisor(t *testing.T) {
	t.Parallel()
	s := newLateStack(t, "exec sleep 1000")
	s.killMeanwhile(t)
	s.start()
	s.expectStatus(t, "created")
	if err := os.Remove(s.slow); err != nil {
		t.Fatal(err)
	}
	s.expectStatus(t, "running")
	s.expectEvents(t, "created a", "start-container a init")
}

// TestARuntimeThatDoesNotSayWhatItHasStarted: what the supervisor cannot find out it
// does not record, and asks again.
func TestARuntimeThatDoesNotSayWhatItHasStarted(t *testing.T) {
	t.Parallel()
	silence := func(t *testing.T, s *lateStack) {
		t.Helper()
		s.end(unix.SIGKILL)
		if err := os.WriteFile(s.mute, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		s.settles(t, func() error {
			if !strings.Contains(s.logged(), "asking the runtime") {
				return errors.New("it is not asked")
			}
			return nil
		})
		s.expectStatus(t, "created")
		s.expectEvents(t, "created a")
	}
	t.Run("created", func(t *testing.T) {
		s := newLateStack(t, "exit 4")
		silence(t, s)
		if err := errors.Join(os.Remove(s.slow), s.startContainer()); err != nil {
			t.Fatal(err)
		}
		s.wait("a", "")
		s.expectEvents(t, "created a", "start-container a init", "exit a init 4")
	})
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprintf("started, asked again %v", asked), func(t *testing.T) {
			s := newLateStack(t, "exec sleep 1000")
			s.killMeanwhile(t)
			started := filepath.Join(s.stateDir(), "a/init/started.json")
			before := read(t, started)
			if err := os.Remove(s.slow); err != nil {
				t.Fatal(err)
			}
			s.settles(t, func() error {
				if read(t, started) == before {
					return errors.New("it is not started")
				}
				return nil
			})
			silence(t, s)
			if err := s.startContainer(); errdefs.CodeOf(err) != errdefs.AlreadyStarted {
				t.Errorf("a start of which nothing is known: %v", err)
			}
			if err := os.Remove(s.mute); err != nil {
				t.Fatal(err)
			}
			if asked { // before or after the supervisor has asked for itself
				if err := s.startContainer(); err != nil && errdefs.CodeOf(err) != errdefs.AlreadyStarted {
					t.Error(err)
				}
				if got := s.state("a").Status; got != "running" {
					t.Errorf("it is %s", got)
				}
			}
			s.expectStatus(t, "running")
			s.expectEvents(t, "created a", "start-container a init")
		})
	}
	t.Run("exits", func(t *testing.T) {
		s := newLateStack(t, "exit 4")
		s.killMeanwhile(t)
		if err := os.WriteFile(s.mute, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		if err := os.Remove(s.slow); err != nil {
			t.Fatal(err)
		}
		s.wait("a", "")
		s.expectEvents(t, "created a", "start-container a init", "exit a init 4")
	})
}
