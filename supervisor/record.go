package supervisor

import (
	"time"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// change is something that happened: an event for the journal and what it does
// to the table.
type change struct {
	event   *api.Event
	apply   func(*table)
	applied chan<- struct{}
}

// appendRetry is the pause before the journal is tried again when its file
// system is full.
const appendRetry = time.Second

// record writes event to the journal, then applies it to the table, then shows
// it to readers, and returns when all of that is done. Of an event that is
// recorded already nothing is repeated and apply does not run.
func (s *Supervisor) record(event *api.Event, apply func(*table)) error {
	applied := make(chan struct{})
	select {
	case s.changes <- change{event, apply, applied}:
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
	recorded, ok := s.append(c.event)
	if !ok {
		return false
	}
	if !recorded {
		close(c.applied)
		return true
	}
	return nil == s.post(func(t *table) {
		c.apply(t)
		t.seq = c.event.Seq
		s.journal.publish(c.event.Seq)
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
