package container

import (
	"errors"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/proto/errdefs"
)

func TestACommitFreezesTheContainerMeanwhile(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("one", func(req *CreateRequest) {
		req.Config.User, req.Config.Labels = "1000", map[string]string{"a": "b"}
		req.Config.ExposedPorts = apinetwork.PortSet{apinetwork.MustParsePort("80/tcp"): {}}
	})
	var during Phase
	w.images.committing = func() { during = w.phase(id) }
	for _, pause := range []bool{true, false} {
		made, err := w.Commit(t.Context(), "one", CommitRequest{Repository: "repo", Tag: "1", Author: "author", Comment: "why", Pause: pause, Changes: []string{"CMD x"},
			Config: &apicontainer.Config{User: "other"}})
		if err != nil || made == "" {
			t.Fatal(made, err)
		}
		if want := map[bool]Phase{true: paused, false: running}[pause]; during != want || w.phase(id) != running {
			t.Errorf("pause %v: %s meanwhile, %s after", pause, during, w.phase(id))
		}
	}
	got := w.images.committed[0]
	if got.Container != id || got.Parent != busybox || got.Author != "author" || got.Comment != "why" || got.Repository != "repo" || got.Tag != "1" ||
		len(got.Changes) != 1 || got.Asked.User != "other" || got.Own.User != "1000" || got.Own.Labels["a"] != "b" || len(got.Own.ExposedPorts) != 1 ||
		strings.Join(got.Command, " ") != "sleep 9" {
		t.Errorf("asked for %+v", got)
	}
	// One that was frozen before stays so.
	if err := w.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context(), id, CommitRequest{Pause: true}); err != nil || w.phase(id) != paused {
		t.Errorf("%v, %s", err, w.phase(id))
	}
	if w.images.committed[2].Asked != nil {
		t.Error("a configuration out of nothing")
	}
}

func TestExportAndCommitOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("one")
	var tree strings.Builder
	if err := w.Export(t.Context(), "one", &tree); err != nil || tree.String() != "the tree of "+id {
		t.Errorf("%q, %v", &tree, err)
	}
	if err := w.Export(t.Context(), "none", &tree); errdefs.KindOf(err) != errdefs.NotFound {
		t.Error(err)
	}
	if _, err := w.Commit(t.Context(), "none", CommitRequest{}); errdefs.KindOf(err) != errdefs.NotFound {
		t.Error(err)
	}
	c, _ := w.index.find(id)
	if err := w.change(t.Context(), c, func(r *Record) error { return r.applyRemoveBegan(w.begun, false) }); err != nil {
		t.Fatal(err)
	}
	if err := w.Export(t.Context(), "one", &tree); errdefs.KindOf(err) != errdefs.Conflict {
		t.Error(err)
	}
	if _, err := w.Commit(t.Context(), "one", CommitRequest{}); errdefs.KindOf(err) != errdefs.Conflict {
		t.Error(err)
	}
}

// An engined that dies during a commit leaves a container frozen that nobody
// else would thaw. The next one finds it at any step.
func TestACommitThatWasCutHalfWay(t *testing.T) {
	now := time.Now().UTC()
	for _, step := range []struct {
		name   string
		commit *time.Time
		status string // of the task, when engined starts
		frozen bool   // in the record
		want   Phase
	}{
		{"noted", &now, "running", false, running},
		{"frozen", &now, "paused", false, running},
		{"recorded", &now, "paused", true, running},
		{"thawed", &now, "running", true, running},
		{"paused by others", nil, "paused", true, paused},
	} {
		t.Run(step.name, func(t *testing.T) {
			w := newWorld(t).run()
			id := w.started("one")
			w.end()
			c, err := w.index.find(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.change(t.Context(), c, func(r *Record) error {
				r.noteCommit(step.commit)
				if step.frozen {
					r.Run.Frozen = &now
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			w.tasks.setStatus(id, step.status)
			w.reopen()
			state, err := w.Tasks.State(t.Context(), id)
			if want := map[Phase]string{running: "running", paused: "paused"}[step.want]; err != nil || state.Status != want || w.phase(id) != step.want {
				t.Errorf("%s, its record says %s, %v", state.Status, w.phase(id), err)
			}
			if c, _ := w.index.find(id); c.record.Load().Run.Commit != nil {
				t.Error("the commit is still noted")
			}
		})
	}
}

// Who unpauses a container during its commit and pauses it again has the last word.
func TestAPauseDuringACommitStays(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("one")
	w.images.committing = func() {
		if err := errors.Join(w.Unpause(t.Context(), id), w.Pause(t.Context(), id)); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.Commit(t.Context(), id, CommitRequest{Pause: true}); err != nil || w.phase(id) != paused {
		t.Errorf("%s, %v", w.phase(id), err)
	}
}
