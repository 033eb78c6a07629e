package container

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// exitLost is the status of a run whose end nobody saw: the machine was
// restarted, or the supervisor's state is gone. It is Docker's.
const exitLost = 255

// reconcileAll makes records, tasks and what else there is agree, at engined's
// start: nobody else works on containers yet.
func (s *Service) reconcileAll(ctx context.Context, snapshot task.Snapshot) error {
	s.reconcile(ctx, snapshot)
	s.following.Wait() // teardowns that the exits began
	// Whether a container without a readable record runs is not known: what it
	// may have stays.
	up := maps.Clone(s.unread)
	for _, c := range s.index.all() {
		r := c.record.Load()
		if r.up() {
			up[c.id] = true
			s.letGoOn(ctx, c)
			continue
		}
		if err := s.sweep(ctx, c); err != nil {
			s.Logger.Error("cleaning up a container", "container", c.id, "error", err)
		}
	}
	if err := s.Networks.Reconcile(ctx, up); err != nil {
		return fmt.Errorf("reconciling networks: %w", err)
	}
	s.sweepStrangers(ctx, snapshot)
	return nil
}

// sweep gives back what an engined that died has left of a container that does
// not run: of a start cut half-way, of a removal, of a create.
func (s *Service) sweep(ctx context.Context, c *container) error {
	release, err := c.turn.take(ctx, tearing, c.id)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := begun(ctx)
	defer cancel()
	r := c.record.Load()
	switch phase := r.Phase(); {
	case phase == removing:
		// A create that was cut off leaves nothing; nor does --rm, whose records
		// by an earlier version do not say what was asked for.
		return s.finishRemove(ctx, c, r.RemoveVolumes || r.Preparing != nil || r.HostConfig.AutoRemove)
	case phase == exited && r.HostConfig.AutoRemove, phase == created && r.StartFailed != nil && r.HostConfig.AutoRemove:
		return s.removeNow(ctx, c, true)
	}
	return s.settle(ctx, c)
}

// sweepStrangers removes what bears the id of no container, where only this
// engine's are: run directories, and tasks whose bundle is in one of them.
func (s *Service) sweepStrangers(ctx context.Context, snapshot task.Snapshot) {
	entries, err := os.ReadDir(filepath.Join(s.ExecRoot, "containers"))
	if err != nil {
		s.Logger.Error("looking for leftovers", "error", err)
		return
	}
	tasks := make(map[string]bool)
	for _, t := range snapshot.Containers {
		tasks[t.ID] = true
	}
	for _, entry := range entries {
		id := entry.Name()
		if _, err := s.index.find(id); err == nil || s.unread[id] {
			continue
		}
		if err := s.sweepStranger(ctx, id, tasks[id]); err != nil {
			s.Logger.Error("removing leftovers", "id", id, "error", err)
		}
	}
}

func (s *Service) sweepStranger(ctx context.Context, id string, hasTask bool) error {
	if hasTask {
		if err := s.deleteTask(ctx, id, true); err != nil {
			return err
		}
	}
	if err := s.Networks.Release(ctx, id); err != nil {
		return err
	}
	if err := s.Layers.Remove(ctx, id); err != nil && errdefs.KindOf(err) != errdefs.NotFound {
		return err
	}
	return os.RemoveAll(s.runDir(id))
}

// reconcile applies a snapshot: exits that were missed, pauses, and runs that
// the supervisor knows no more.
func (s *Service) reconcile(ctx context.Context, snapshot task.Snapshot) {
	tasks := make(map[string]*task.Container)
	for i := range snapshot.Containers {
		tasks[snapshot.Containers[i].ID] = &snapshot.Containers[i]
	}
	for _, c := range s.index.all() {
		if err := s.reconcileOne(ctx, c, tasks[c.id]); err != nil {
			s.Logger.Error("reconciling a container", "container", c.id, "error", err)
		}
	}
}

func (s *Service) reconcileOne(ctx context.Context, c *container, t *task.Container) error {
	r := c.record.Load()
	if t == nil && r.up() {
		// It may have been started since the snapshot was taken.
		now, err := s.Tasks.State(ctx, c.id)
		if errdefs.KindOf(err) == errdefs.NotFound {
			s.exited(c, task.Exit{Status: exitLost, Time: time.Now().UTC(), Reason: errNoTask.Error()})
			return nil
		}
		if err != nil {
			return err
		}
		t = &now
	}
	if t == nil {
		return nil
	}
	if init := t.Process(initProcess); init != nil && init.Exit != nil {
		s.exited(c, *init.Exit)
		return nil
	}
	for _, p := range t.Processes {
		if p.Exit != nil {
			s.execEnded(ctx, c.id, p.ID, *p.Exit)
		}
	}
	return s.noteStatus(ctx, c, t.Status)
}
