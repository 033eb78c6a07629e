package supervisor

import (
	"testing"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// An OOM notice can arrive after the delete of its container; the id must be
// free for the next all the same.
func TestALateEventDoesNotMakeADeletedContainerKnown(t *testing.T) {
	f := &facts{}
	take := func(kind string) bool {
		event := &api.Event{Type: kind, Id: "web", Pid: "init", OomKills: 1}
		if f.has(event) {
			return false
		}
		f.note(event)
		return true
	}
	for _, kind := range []string{eventCreated, eventStartContainer, eventOOM, eventExit, eventDelete} {
		if !take(kind) {
			t.Fatalf("%s is not recorded", kind)
		}
	}
	for _, kind := range []string{eventOOM, eventPause, eventResume, eventUpdate, eventForget, eventExit, eventDelete} {
		if take(kind) {
			t.Errorf("%s of a deleted container is recorded", kind)
		}
	}
	if !take(eventCreated) {
		t.Error("the next container of that id is taken for the deleted one")
	}
}

// A container that ends while it is frozen is not to be thawed by the next supervisor.
func TestAContainerThatHasEndedIsNotPaused(t *testing.T) {
	f := &facts{}
	for _, test := range []struct {
		kind   string
		paused bool
	}{
		{eventCreated, false}, {eventStartContainer, false}, {eventPause, true}, {eventUpdate, true}, {eventResume, false},
		{eventPause, true}, {eventExit, false}, {eventPause, true}, {eventDelete, false},
	} {
		f.note(&api.Event{Type: test.kind, Id: "web", Pid: "init"})
		if got := f.of("web").paused; got != test.paused {
			t.Errorf("paused after %s: %v", test.kind, got)
		}
	}
}
