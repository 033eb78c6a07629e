package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/task"
)

func TestWhatRunsGoesOnAcrossARestart(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	w.reopen()
	if phase := w.phase(id); phase != running || !w.networks.kept[id] {
		t.Errorf("phase %s, network kept: %v", phase, w.networks.kept[id])
	}
	ended := w.waitFor(id, waitNotRunning)
	w.tasks.exit(id, 4)
	if code := w.receive(ended); code != 4 {
		t.Errorf("exit status %d", code)
	}
	w.clean()
}

func TestAnExitWhileEnginedWasAway(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	self := w.started("self", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
	w.end()
	w.tasks.exit(id, 4)
	w.tasks.exit(self, 0)
	w.reopen()
	if r, err := w.Inspect(t.Context(), id, false); err != nil || r.State.ExitCode != 4 || r.State.Status != exited {
		t.Errorf("state %+v (%v)", r.State, err)
	}
	if phase := w.phase(self); phase != gone {
		t.Errorf("--rm: %s", phase)
	}
	w.clean()
}

func TestARunThatTheSupervisorKnowsNoMore(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	w.end()
	if err := w.tasks.Delete(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	r, err := w.Inspect(t.Context(), id, false)
	if err != nil || r.State.ExitCode != 255 || r.State.Error == "" {
		t.Errorf("state %+v (%v)", r.State, err)
	}
	w.clean()
}

func TestASnapshotWhileRunningTellsWhatWasMissed(t *testing.T) {
	w := newWorld(t).run()
	id, lost := w.started("web"), w.started("lost")
	ended, away := w.waitFor(id, waitNotRunning), w.waitFor(lost, waitNotRunning)
	w.tasks.mu.Lock()
	exit := task.Exit{Status: 6, Time: time.Now()}
	w.tasks.tasks[id].Processes[0].Exit = &exit
	delete(w.tasks.tasks, lost)
	snapshot := w.tasks.snapshotLocked()
	w.tasks.emitLocked(task.Event{Type: task.EventSnapshot, Snapshot: &snapshot})
	w.tasks.mu.Unlock()
	if code := w.receive(ended); code != 6 {
		t.Errorf("exit status %d", code)
	}
	if code := w.receive(away); code != 255 {
		t.Errorf("exit status %d of the lost one", code)
	}
	w.clean()
}

// cut stops a start at a point, as a kill of engined would, by writing the
// state that it has then.
func TestAStartThatWasCutHalfWay(t *testing.T) {
	for _, step := range []string{"directory", "mount", "network", "task"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t).run()
			id := w.create("web")
			w.end()
			if err := os.Mkdir(w.runDir(id), 0o711); err != nil {
				t.Fatal(err)
			}
			if step != "directory" {
				w.layers.mounted[id] = true
			}
			if step == "network" || step == "task" {
				w.networks.allocated[id] = true
			}
			if step == "task" {
				if err := os.WriteFile(filepath.Join(w.runDir(id), "config.json"), []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := w.tasks.Create(t.Context(), task.CreateRequest{ID: id, Bundle: w.runDir(id)}); err != nil {
					t.Fatal(err)
				}
			}
			w.reopen()
			w.clean()
			if phase := w.phase(id); phase != created {
				t.Errorf("phase %s", phase)
			}
			if err := w.Start(t.Context(), id); err != nil {
				t.Error("the next start:", err)
			}
		})
	}
}

func TestACreateThatWasCutHalfWay(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	c, err := w.index.find(id)
	if err != nil {
		t.Fatal(err)
	}
	w.end()
	half := *c.record.Load()
	half.Preparing = &half.Created
	if err := w.rows.save(t.Context(), &half); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if phase := w.phase(id); phase != gone {
		t.Errorf("phase %s", phase)
	}
	if len(w.images.held)+len(w.layers.made) != 0 {
		t.Errorf("left: %v %v", w.images.held, w.layers.made)
	}
	w.create("web")
}

func TestARemovalThatWasCutHalfWay(t *testing.T) {
	for name, test := range map[string]struct {
		volumes, autoRemove, left bool
	}{
		"plain":   {left: true},
		"volumes": {volumes: true},
		"itself":  {autoRemove: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).run()
			id := w.create("web", func(r *CreateRequest) {
				r.Config.Volumes = map[string]struct{}{"/data": {}}
				r.HostConfig.AutoRemove = test.autoRemove
			})
			c, err := w.index.find(id)
			if err != nil {
				t.Fatal(err)
			}
			volume := c.record.Load().Mounts[0].Source
			if err := w.change(t.Context(), c, func(r *Record) error { return r.applyRemoveBegan(time.Now(), test.volumes) }); err != nil {
				t.Fatal(err)
			}
			w.reopen()
			if phase := w.phase(id); phase != gone {
				t.Errorf("phase %s", phase)
			}
			if _, err := os.Stat(volume); (err == nil) != test.left {
				t.Errorf("its volume: %v", err)
			}
		})
	}
}

func TestLeftoversWithoutARecordAreRemoved(t *testing.T) {
	w := newWorld(t)
	stranger := strings.Repeat("ab", 32)
	if err := os.Mkdir(w.runDir(stranger), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.runDir(stranger), "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.layers.mounted[stranger] = true
	for _, id := range []string{stranger, "somebody-elses"} {
		if _, err := w.tasks.Create(t.Context(), task.CreateRequest{ID: id, Bundle: w.runDir(stranger)}); err != nil {
			t.Fatal(err)
		}
	}
	w.run()
	w.clean("somebody-elses")
	if ids := w.tasks.ids(); len(ids) != 1 {
		t.Errorf("tasks left: %v", ids)
	}
}

func TestABrokenRecordHidesNoOther(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	w.end()
	broken := &Record{ID: "broken", Name: "broken"}
	if err := w.rows.save(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	if err := breakRow(t.Context(), w, "broken"); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if phase := w.phase(id); phase != created {
		t.Errorf("phase %s", phase)
	}
}

func TestAContainerWithABrokenRecordRunsOn(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	w.end()
	if err := breakRow(t.Context(), w, id); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if !slices.Contains(w.tasks.ids(), id) {
		t.Error("its task was deleted")
	}
	if !w.layers.made[id] || !w.layers.mounted[id] {
		t.Error("its layer was removed")
	}
	if !w.networks.allocated[id] {
		t.Error("its network was released")
	}
	if _, err := os.Stat(w.runDir(id)); err != nil {
		t.Error(err)
	}
}

func TestPausedWhileEnginedWasAway(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	w.end()
	w.tasks.setStatus(id, "paused")
	w.reopen()
	if phase := w.phase(id); phase != paused {
		t.Errorf("phase %s", phase)
	}
	list, err := w.List(t.Context(), ListOptions{Filters: map[string][]string{"status": {string(apicontainer.StatePaused)}}})
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
