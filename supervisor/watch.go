package supervisor

import (
	"context"
	"errors"
	"time"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// lostStatus is the status of a process whose end left no trace.
const lostStatus = 137

// attend begins to watch a container that is in the table, until its shim is
// dead. The end of its cgroup, which ends the watch for OOM too, is not always
// told by the kernel: once in several thousand removals the eventfd stays silent.
// heard is closed when the shim has been heard of for the first time.
func (s *Supervisor) attend(c *container) (heard <-chan struct{}) {
	present, gone := context.WithCancel(s.life)
	first := make(chan struct{})
	s.own.Go(func() { defer gone(); s.watch(c, first) })
	s.own.Go(func() { s.watchOOM(present, c) })
	return first
}

// greetTurn is for how long a shim that does not answer holds up the next.
const greetTurn = 100 * time.Millisecond

// attendAll begins to watch restored containers, one after the other: a shim that
// has been idle faults its memory in to answer, and what hundreds do at the same time
// is what the first clients would wait for.
func (s *Supervisor) attendAll(restored []*container) {
	turn := time.NewTimer(greetTurn)
	defer turn.Stop()
	for _, c := range restored {
		heard := s.attend(c)
		turn.Reset(greetTurn)
		select {
		case <-heard:
		case <-turn.C:
		case <-s.life.Done():
			return
		}
	}
}

// watch records the exits of one container until its shim is dead. It is the
// only reader of the shim's notes, and closes heard after the first.
func (s *Supervisor) watch(c *container, heard chan<- struct{}) {
	for {
		name, err := c.handle.Next(s.life)
		if heard != nil {
			close(heard)
			heard = nil
		}
		switch {
		case errors.Is(err, runtime.ErrShimDead):
			s.queues.put(c.handle.ID(), exclusive, func() { s.bury(c) })
			return
		case s.life.Err() != nil:
			c.handle.Close()
			return
		case err != nil:
			s.logger.Warn("listening to a shim", "container", c.handle.ID(), "error", err)
		case name == "":
			s.noteExits(c)
		default:
			s.noteExit(c, name)
		}
	}
}

// watchOOM records that the kernel runs out of a container's memory, for as
// long as the container has a cgroup and ctx lasts. One container's cgroup is
// looked for at a time: after a restart there are hundreds, and requests.
func (s *Supervisor) watchOOM(ctx context.Context, c *container) {
	id := c.handle.ID()
	s.oomTurn.Lock() // for no longer than some files take to read
	ooms, err := c.handle.OOMs(ctx, c.oomKills)
	s.oomTurn.Unlock()
	if err != nil {
		if errdefs.KindOf(err) != errdefs.NotFound { // NotFound: it has ended already
			s.logger.Debug("no OOM events for a container", "container", id, "error", err)
		}
		return
	}
	for kills := range ooms {
		if s.recordOOM(id, kills) != nil {
			return
		}
	}
}

// recordOOM records that the kernel has killed so many of a container's processes, if
// that is not recorded already. Its cgroup tells, and the exit of its first process,
// which is all there is if the cgroup is gone before anybody looks at it.
func (s *Supervisor) recordOOM(id string, kills uint64) error {
	return s.record(&api.Event{Type: eventOOM, Id: id, OomKills: kills}, func(*table) {})
}

// unfinished returns the processes of c whose exit is not recorded, of which
// init comes last: when it is recorded the container is stopped.
func (s *Supervisor) unfinished(c *container) (names []string) {
	_ = s.ask(func(*table) error {
		for i := len(c.processes) - 1; i >= 0; i-- {
			if c.processes[i].exit == nil {
				names = append(names, c.processes[i].name)
			}
		}
		return nil
	})
	return names
}

// noteExits records every exit that the files tell of.
func (s *Supervisor) noteExits(c *container) {
	for _, name := range s.unfinished(c) {
		s.noteExit(c, name)
	}
}

// noteExit records a process's exit if there is one and it is not recorded.
func (s *Supervisor) noteExit(c *container, name string) {
	switch {
	case name == runtime.Init:
		s.adoptResumed(c)
	case s.isOrphan(c, name):
		s.adoptStart(c, name)
	}
	if !s.mayExit(c, name) {
		return
	}
	exit, err := c.handle.Exit(name)
	if errdefs.KindOf(err) == errdefs.NotFound {
		return
	}
	if err != nil {
		exit = runtime.Exit{Status: lostStatus, Time: time.Now(), Reason: "its exit status cannot be read: " + err.Error()}
	}
	failpoint.At("supervisor-exit-read")
	if name == runtime.Init && exit.OOMKilled && s.recordOOM(c.handle.ID(), 1) != nil {
		return // stopping, as below
	}
	if err := s.recordExit(c, name, exitMessage(exit)); err != nil {
		return // stopping: the next supervisor finds the file
	}
	s.forgetOldest(c)
}

// mayExit reports whether an exit of the process is to be recorded now. Of one
// whose start is not recorded yet it is remembered.
func (s *Supervisor) mayExit(c *container, name string) (may bool) {
	_ = s.ask(func(*table) error {
		p := c.process(name)
		if p == nil || p.exit != nil {
			return nil
		}
		p.exitSeen = true
		may = !p.starting && !p.held
		return nil
	})
	return may
}

func (s *Supervisor) recordExit(c *container, name string, exit *api.Exit) error {
	event := &api.Event{Type: eventExit, Id: c.handle.ID(), Pid: name, Status: exit.Status, Exit: exit}
	return s.record(event, func(*table) { c.ensureExited(name, exit) })
}

// ensureExit is recordExit for an exit that an earlier supervisor may have recorded:
// the table has it afterwards. No process is added to the container meanwhile, which
// might have the name of one that is forgotten.
func (s *Supervisor) ensureExit(c *container, name string, exit *api.Exit) error {
	if err := s.recordExit(c, name, exit); err != nil {
		return err
	}
	return s.ask(func(*table) error { c.ensureExited(name, exit); return nil })
}

func (c *container) ensureExited(name string, exit *api.Exit) {
	if p := c.process(name); p != nil && p.exit == nil {
		c.exited(p, exit)
	}
}

// forgetOldest keeps the exited processes of a container within keptExits.
func (s *Supervisor) forgetOldest(c *container) {
	var oldest *process
	_ = s.ask(func(t *table) error {
		if oldest = c.oldestExited(keptExits); oldest != nil {
			oldest.leaving = true
		}
		return nil
	})
	if oldest == nil {
		return
	}
	s.queues.put(c.handle.ID(), shared, func() {
		present := false
		_ = s.ask(func(t *table) error {
			present = t.has(c)
			return nil
		})
		if !present {
			return // with the container all of it has gone
		}
		if err := s.forget(s.life, c, oldest); err != nil {
			s.logger.Warn("forgetting an exited process", "container", c.handle.ID(), "process", oldest.name, "error", err)
		}
	})
}

// bury deals with a dead shim: if it left anything alive that is killed, and
// every process without an exit gets one.
func (s *Supervisor) bury(c *container) {
	id := c.handle.ID()
	present := false
	_ = s.ask(func(t *table) error {
		present = t.has(c)
		c.message = nil // the shim's pid is in it
		return nil
	})
	if !present {
		return
	}
	s.noteExits(c)
	if len(s.unfinished(c)) == 0 {
		return
	}
	s.logger.Error("a shim died; its container is killed", "container", id)
	if err := c.handle.Bury(s.life); err != nil {
		s.logger.Error("clearing up after a dead shim", "container", id, "error", err)
	}
	s.finish(c, "the shim died, and with it the process was killed")
}

// finish records an exit for every process that has none; reason is for those
// of which no file tells.
func (s *Supervisor) finish(c *container, reason string) {
	s.release(c) // who waits for a start hears no more of it
	s.noteExits(c)
	_ = s.ask(func(*table) error { c.dropOrphans(); return nil })
	for _, name := range s.unfinished(c) {
		exit := exitMessage(runtime.Exit{Status: lostStatus, Signal: lostStatus - 128, Time: time.Now(), Reason: reason})
		if s.ensureExit(c, name, exit) != nil {
			return // stopping
		}
	}
}

// awaitExit waits for at most bound until p's exit is recorded.
func (s *Supervisor) awaitExit(ctx context.Context, p *process, bound time.Duration) bool {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
