package container

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
)

func TestAWaitForARemovalThatFailsEnds(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
	removed := w.waitFor(id, apicontainer.WaitConditionRemoved)
	w.layers.mu.Lock()
	w.layers.stuck = errFake
	w.layers.mu.Unlock()
	w.tasks.exit(id, 5)
	w.quiet()
	select {
	case r := <-removed:
		if r.StatusCode != 5 || r.Error == nil || !strings.Contains(r.Error.Message, errFake.Error()) {
			t.Errorf("answer %+v, error %+v", r, r.Error)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the wait does not end")
	}
	if phase := w.phase(id); phase != dead {
		t.Errorf("phase %s", phase)
	}
}

// outlast lets what a verb does take as long as the verb may.
func outlast(ctx context.Context) { <-ctx.Done() }

func TestARemovalThatTakesTooLongIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t).run()
		defer w.end()
		id := w.create("web")
		w.layers.slow = outlast
		if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
			t.Error(err)
		}
		if phase := w.phase(id); phase != gone {
			t.Errorf("phase %s", phase)
		}
	})
}

func TestAFailureForLackOfTimeIsNoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t).run()
		defer w.end()
		id := w.create("web")
		w.layers.slow, w.layers.fail, w.layers.stuck = outlast, errFake, errFake
		if err := w.Start(t.Context(), id); err == nil {
			t.Error("it starts")
		}
		if found, err := w.Inspect(t.Context(), id, false); err != nil || found.State.Error == "" {
			t.Errorf("state %+v (%v)", found.State, err)
		}
		if err := w.Remove(t.Context(), id, RemoveOptions{}); err == nil {
			t.Error("it is removed")
		}
		if phase := w.phase(id); phase != dead {
			t.Errorf("phase %s", phase)
		}
	})
}
