package supervisor

import (
	"time"

	"github.com/engined/engined/failpoint"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// change is what happened at once, in order.
type change struct {
	steps   []step
	applied chan<- struct{}
}

// step is an event for the journal and what it does to the table.
type step struct {
	event *api.Event
	apply func(*table)
}

// appendRetry is the pause before the journal is tried again when its file
// system is full.
const appendRetry = time.Second

// record is recordAll of one event.
func (s *Supervisor) record(event *api.Event, apply func(*table)) error {
	return s.recordAll(step{event, apply})
}

// recordAll writes events to the journal, then applies them to the table, then
// shows them to readers, and returns when all of that is done. Of an event that
// is recorded already nothing is repeated and apply does not run.
func (s *Supervisor) recordAll(steps ...step) error {
	applied := make(chan struct{})
	select {
	case s.changes <- change{steps, applied}:
	case <-s.life.Done():
		return errStopping()
	}
	select {
	case <-applied:
		return nil
	case <-s.life.Done():
		return errStopping()
	}
}

// recorder is the one goroutine that appends to the journal. The loop applies
// changes in the order of their numbers.
func (s *Supervisor) recorder() {
	for {
		select {
		case c := <-s.changes:
			if !s.recordOne(c) {
				return
			}
		case <-s.life.Done():
			return
		}
	}
}

// recordOne returns false if the supervisor stops before c is recorded.
func (s *Supervisor) recordOne(c change) bool {
	defer s.stir()
	var fresh []step
	for _, one := range c.steps {
		recorded, ok := s.append(one.event)
		if !ok {
			return false
		}
		if recorded {
			failpoint.At("supervisor-event-written")
			fresh = append(fresh, one)
		}
	}
	if len(fresh) == 0 {
		close(c.applied)
		return true
	}
	return nil == s.post(func(t *table) {
		for _, one := range fresh {
			one.apply(t)
		}
		t.seq = fresh[len(fresh)-1].event.Seq
		s.journal.publish(t.seq)
		close(c.applied)
	})
}

// append tries until the journal takes the event: to drop one is not allowed,
// to show one that is not kept neither.
func (s *Supervisor) append(event *api.Event) (recorded, ok bool) {
	for complained := false; ; complained = true {
		recorded, err := s.journal.append(event)
		if err == nil {
			return recorded, true
		}
		if !complained {
			s.logger.Error("the journal cannot be written; events wait until it can", "error", err)
		}
		select {
		case <-time.After(appendRetry):
		case <-s.life.Done():
			return false, false
		}
	}
}
