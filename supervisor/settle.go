package supervisor

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// What the last supervisor had asked a shim for when it was killed goes on. The shim
// answers only who asked: how that has ended has to be asked, at the end of what the
// shim has called. Where it has called nobody, as while it waits for fifos, and where
// nobody answers, nothing tells when to ask again but a pause.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// settleAgain calls again, alone among c's work, when busy closes or, if it is nil,
// after pause. It is given the next pause.
func (s *Supervisor) settleAgain(c *container, busy <-chan struct{}, pause time.Duration, again func(time.Duration)) {
	s.own.Go(func() {
		var over <-chan time.Time
		if busy == nil {
			over = time.After(pause)
		}
		select {
		case <-busy:
		case <-over:
			pause = min(2*pause, lastPause)
		case <-s.life.Done():
			return
		}
		s.queues.put(c.handle.ID(), exclusive, func() { again(pause) })
	})
}

// settleCreated asks the runtime whether a restored container has been started, and
// records what it has missed if so. What it cannot find out it asks again, after pause.
func (s *Supervisor) settleCreated(c *container, found []runtime.Process, known recorded, pause time.Duration) {
	if !s.isCreated(c) {
		return // its client was faster
	}
	again := func(pause time.Duration) { s.settleCreated(c, found, known, pause) }
	if busy := c.handle.Busy(s.life); busy != nil { // with a start that the last supervisor asked for
		s.settleAgain(c, busy, pause, again)
		return
	}
	created, err := c.handle.Created(s.life)
	if err != nil {
		s.logger.Warn("asking the runtime for a container's status", "container", c.handle.ID(), "error", err)
		s.release(c)
		s.settleAgain(c, nil, pause, again)
		return
	}
	if !created {
		if init, err := c.handle.Process(runtime.Init); err == nil { // written anew by the start
			found[0] = init
		}
		if s.recordFound(c, found, known) != nil {
			return // stopping
		}
	}
	s.release(c)
}

// settleOrphans finds out what has become of the processes that the last supervisor
// was adding: the start of those that have come to run is recorded, and the names of
// those that the shim does not have are free.
func (s *Supervisor) settleOrphans(c *container, pause time.Duration) {
	if len(s.orphans(c)) == 0 {
		return
	}
	known, err := c.handle.Known(s.life)
	alive := c.handle.ShimPid() != 0 // a dead one will start nothing
	if err != nil && alive {
		s.logger.Warn("asking a shim what it has started", "container", c.handle.ID(), "error", err)
	}
	for _, name := range s.orphans(c) {
		s.noteExit(c, name)
		if s.isOrphan(c, name) && !slices.Contains(known, name) && (err == nil || !alive) {
			s.dropOrphan(c, name)
		}
	}
	if len(s.orphans(c)) > 0 {
		s.settleAgain(c, c.handle.Busy(s.life), pause, func(pause time.Duration) { s.settleOrphans(c, pause) })
	}
}

// orphans returns the names of c's processes of which it is not known whether they
// have started, none if c has been deleted.
func (s *Supervisor) orphans(c *container) (names []string) {
	_ = s.ask(func(t *table) error {
		if !t.has(c) {
			return nil
		}
		for _, p := range c.processes {
			if p.orphan {
				names = append(names, p.name)
			}
		}
		return nil
	})
	return names
}

func (s *Supervisor) isOrphan(c *container, name string) bool {
	return slices.Contains(s.orphans(c), name)
}

// dropOrphan takes back what is there of a process that has not started. Should the
// shim come to it after all, it finds no request.
func (s *Supervisor) dropOrphan(c *container, name string) {
	s.logger.Warn("a process's start was cut off and is undone", "container", c.handle.ID(), "process", name)
	if err := c.handle.Discard(name); err != nil {
		s.logger.Error("undoing a start that was cut off", "container", c.handle.ID(), "process", name, "error", err)
		if c.handle.Holds(name) {
			return
		}
	}
	_ = s.ask(func(*table) error { c.drop(name); return nil })
}

// adoptStart records the start of an orphan, if it runs or has run.
func (s *Supervisor) adoptStart(c *container, name string) {
	var p *process
	_ = s.ask(func(*table) error { p = c.process(name); return nil })
	found, err := c.handle.Process(name)
	if err != nil || found.Started == nil || p == nil {
		return
	}
	if found.Exit == nil && !c.handle.Runs(*found.Started) {
		return // killed by a shim that could not take it over, or its exit is being written
	}
	first := false
	_ = s.ask(func(*table) error { first, p.orphan = p.orphan, false; return nil })
	if !first {
		return // an exit was noted at the same time
	}
	event := &api.Event{Type: eventStartProcess, Id: c.handle.ID(), Pid: name,
		SystemPid: uint32(found.Started.Pid), Timestamp: timestamppb.New(found.Started.Time)}
	if err := s.record(event, func(*table) {}); err != nil {
		return // stopping
	}
	_ = s.ask(func(*table) error { c.started(p, *found.Started); return nil })
}
