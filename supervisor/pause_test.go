package supervisor_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestAFreezeThatWasCutOffIsAnEvent: the supervisor is killed between what it does to
// the cgroup and the record of it, and the next one records it, once.
func TestAFreezeThatWasCutOffIsAnEvent(t *testing.T) {
	t.Parallel()
	s := newFailingStack(t)
	s.start()
	s.run("a", "exec sleep 1000")
	want := []string{"created a", "start-container a init"}
	for _, test := range []struct{ status, event string }{{"paused", "pause a"}, {"running", "resume a"}} {
		s.end(unix.SIGTERM)
		s.env = []string{"ENGINED_FAILPOINT=runtime-frozen-or-thawed"}
		s.start()
		if err := s.turn("a", test.status); errdefs.KindOf(err) != errdefs.Unavailable {
			t.Errorf("%s: the supervisor did not die: %v", test.status, err)
		}
		s.awaitKill()
		s.env = nil
		want = append(want, test.event)
		for range 2 { // the second has nothing to add
			s.start()
			if got := s.state("a").Status; got != test.status {
				t.Errorf("it is %s, expected %s", got, test.status)
			}
			if events := s.stored(); !slices.Equal(events, want) {
				t.Errorf("events %q, expected %q", events, want)
			}
			s.end(unix.SIGKILL)
		}
		s.start()
	}
}

// TestAPauseIsRememberedByTheJournal: also when its event has left it.
func TestAPauseIsRememberedByTheJournal(t *testing.T) {
	t.Parallel()
	s := newStack(t, "--journal-events", "8")
	s.run("a", "exec sleep 1000")
	if err := s.turn("a", "paused"); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		_, err := s.client.UpdateContainer(t.Context(), &api.UpdateContainerRequest{Id: "a", Resources: &api.UpdateResource{CpuShares: 512}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if count(s.stored(), "pause a") != 0 {
		t.Fatal("the journal still holds the event")
	}
	s.end(unix.SIGKILL)
	s.start()
	if got := s.state("a").Status; got != "paused" {
		t.Errorf("it is %s", got)
	}
	if events := s.stored(); count(events, "pause a") != 0 {
		t.Errorf("recorded again: %q", events)
	}
}
