package supervisor

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/engined/engined/failpoint"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// restoreAtOnce is how many directories are read at the same time.
const restoreAtOnce = 4

// restore makes the table out of the container directories. What happened while
// there was no supervisor is recorded: each start and exit once, whether or not
// the last supervisor came to record it. It waits for no shim.
func (s *Supervisor) restore() error {
	known := s.journal.facts.copy() // the recorder has nothing to do yet
	ids, err := s.host.IDs()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	next := make(chan string)
	for range restoreAtOnce { // and not one for each, whose stack would grow each time
		all.Go(func() {
			for id := range next {
				s.restoreOne(id, known.of(id))
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	all.Wait()
	s.recordVanished(known, ids)
	return nil
}

// restored is every container of the table that restore has filled.
func (s *Supervisor) restored() (all []*container) {
	_ = s.ask(func(t *table) error {
		all = slices.Collect(maps.Values(t.containers))
		return nil
	})
	return all
}

// restoreOne takes in one directory, whatever it holds.
func (s *Supervisor) restoreOne(id string, known recorded) {
	logger := s.logger.With("container", id)
	if !isID(id) {
		logger.Warn("a directory in the state directory is no container's and is skipped")
		return
	}
	handle, processes, err := s.host.Load(s.life, id)
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.host.Unborn(id):
		logger.Warn("a container was never started; its directory is removed")
		if err := s.host.Discard(id); err != nil {
			logger.Error("removing the directory", "error", err)
		}
	case err != nil:
		logger.Error("a container's directory is unreadable and skipped", "error", err)
	case processes[0].Started == nil || handle.Doomed():
		// Its creator has had no answer, and nobody waits for one any more.
		logger.Warn("a container's creation was cut off and is undone")
		failpoint.At("supervisor-creation-cut-off")
		if err := handle.Doom(); err != nil {
			logger.Error("recording that the container is to go", "error", err)
		}
		failpoint.At("supervisor-container-doomed")
		s.queues.put(id, exclusive, func() { s.undoCreate(handle) })
	default:
		s.readmit(handle, processes, known)
	}
}

func (s *Supervisor) undoCreate(handle *runtime.Container) {
	if err := handle.Unmake(s.life); err != nil { // whoever uses the id next tries again
		s.logger.Error("undoing a creation that was cut off", "container", handle.ID(), "error", err)
	}
}

// readmit puts a restored container into the table and records what is not
// recorded of it.
func (s *Supervisor) readmit(handle *runtime.Container, found []runtime.Process, known recorded) {
	id := handle.ID()
	spec, err := bundleProcess(handle.Record().Bundle)
	if err != nil {
		s.logger.Warn("the bundle of a restored container is gone", "container", id, "error", err)
	}
	found[0].Spec = spec
	// Of what CreateContainer only created: the last supervisor may have died between
	// start and record.
	unsure := found[0].Request.CreateOnly && known.processes[runtime.Init]&recordedStart == 0
	c := &container{handle: handle, status: statusCreated, oomKills: known.oomKills}
	if !unsure {
		c.status = known.status()
	}
	for _, f := range found {
		c.processes = append(c.processes, restoredProcess(f))
	}
	c.init().held = unsure
	// In the table first: the events may be recorded already, and then change nothing.
	err = s.ask(func(t *table) error { t.containers[id] = c; return nil })
	if err == nil {
		err = s.record(&api.Event{Type: eventCreated, Id: id, Timestamp: timestamppb.New(handle.Record().Created)}, func(*table) {})
	}
	if err == nil && !unsure {
		err = s.recordFound(c, found, known)
	}
	if err == nil {
		err = s.recordForgotten(c, known)
	}
	if err != nil {
		return // stopping
	}
	if unsure { // asked later: a runtime that hangs holds up nobody else
		s.queues.put(id, exclusive, func() { s.settleCreated(c, found, known, firstPause) })
	}
	if len(s.orphans(c)) > 0 {
		s.queues.put(id, exclusive, func() { s.settleOrphans(c, firstPause) })
	}
}

// restoredProcess is a process as its files have it. Its exit is not in it yet.
func restoredProcess(f runtime.Process) *process {
	p := newProcess(f.Name, f.Spec, f.Request)
	if f.Started == nil {
		p.starting, p.orphan = true, true
		return p
	}
	p.message.SystemPid, p.message.StartedAt = uint32(f.Started.Pid), timestamppb.New(f.Started.Time)
	return p
}

// recordFreeze records that a container has been frozen or thawed, if the kernel has
// it otherwise than the journal: the last supervisor was killed between the two.
func (s *Supervisor) recordFreeze(c *container, init runtime.Process, known recorded) error {
	if init.Exit != nil {
		return nil
	}
	paused, err := c.handle.Paused()
	if err != nil {
		s.logger.Debug("asking whether a container is paused", "container", c.handle.ID(), "error", err)
		return nil
	}
	if paused == known.paused {
		return nil
	}
	if paused {
		return s.recordPause(c)
	}
	return s.recordResume(c)
}

// recordFound records the starts, the freeze and the exits that are not recorded,
// init's exit last, and puts all exits into the table.
func (s *Supervisor) recordFound(c *container, found []runtime.Process, known recorded) error {
	id := c.handle.ID()
	for _, f := range found {
		if f.Started == nil || known.processes[f.Name]&recordedStart != 0 {
			continue
		}
		event := &api.Event{Type: eventStartProcess, Id: id, Pid: f.Name, SystemPid: uint32(f.Started.Pid), Timestamp: timestamppb.New(f.Started.Time)}
		apply := func(*table) {}
		if f.Name == runtime.Init {
			event.Type = eventStartContainer
			apply = func(*table) {
				c.started(c.init(), *f.Started)
				c.turn(statusCreated, statusRunning)
			}
		}
		if err := s.record(event, apply); err != nil {
			return err
		}
	}
	if err := s.recordFreeze(c, found[0], known); err != nil {
		return err
	}
	for _, f := range slices.Backward(found) {
		if f.Exit == nil || f.Started == nil {
			continue
		}
		exit := exitMessage(*f.Exit)
		if f.Name == runtime.Init && exit.OomKilled {
			if err := s.recordOOM(id, 1); err != nil {
				return err
			}
		}
		if err := s.ensureExit(c, f.Name, exit); err != nil {
			return err
		}
	}
	return nil
}

// recordForgotten records that the names of added processes are free of which the
// journal knows and the directory does not: the last supervisor was killed before
// it recorded what it had forgotten.
func (s *Supervisor) recordForgotten(c *container, known recorded) error {
	id := c.handle.ID()
	for name, progress := range known.processes {
		if name == runtime.Init || c.handle.Holds(name) {
			continue
		}
		if err := s.recordLoss(id, name, progress); err != nil {
			return err
		}
		if err := s.record(&api.Event{Type: eventForget, Id: id, Pid: name}, func(*table) {}); err != nil {
			return err
		}
	}
	return nil
}

// recordLoss records the exit of a process whose directory is gone, if its start is
// recorded and no exit.
func (s *Supervisor) recordLoss(id, name string, progress progress) error {
	if progress != recordedStart {
		return nil
	}
	exit := exitMessage(runtime.Exit{Status: lostStatus, Time: time.Now(), Reason: "its state directory is gone"})
	return s.record(&api.Event{Type: eventExit, Id: id, Pid: name, Status: exit.Status, Exit: exit}, func(*table) {})
}

// recordVanished records the end of what the journal knows and the state
// directory does not: a deletion that was cut off before its event, or a
// directory that somebody has removed.
func (s *Supervisor) recordVanished(known facts, ids []string) {
	for id, processes := range known.Processes {
		if slices.Contains(ids, id) {
			continue
		}
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(processes))) {
			if s.recordLoss(id, name, processes[name]) != nil {
				return
			}
		}
		if s.record(&api.Event{Type: eventDelete, Id: id}, func(*table) {}) != nil {
			return
		}
	}
}

func (f facts) copy() facts {
	copied := facts{make(map[string]map[string]progress, len(f.Processes)), maps.Clone(f.OOMKills), maps.Clone(f.Paused)}
	for id, processes := range f.Processes {
		copied.Processes[id] = maps.Clone(processes)
	}
	return copied
}
