package events

import (
	"context"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

// Kept is how many messages are remembered for `since`.
const Kept = 1024

// Backlog is how many messages a subscriber may be behind.
const Backlog = 16384

// Log is the log of events. It is safe for concurrent use.
type Log struct {
	pumps sync.WaitGroup

	mu          sync.Mutex          // guards what follows
	kept        []apievents.Message // a ring once it has Kept elements
	oldest      int                 // where the ring begins
	subscribers map[*subscriber]struct{}
	closed      bool
}

// New returns an empty log.
func New() *Log {
	return &Log{subscribers: make(map[*subscriber]struct{})}
}

// Publish adds a message and gives it the present time.
func (l *Log) Publish(typ apievents.Type, action apievents.Action, actor apievents.Actor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The time is taken under the lock, so that the log is in its order.
	now := time.Now().UTC()
	message := apievents.Message{
		Type: typ, Action: action, Actor: actor, Scope: "local",
		Time: now.Unix(), TimeNano: now.UnixNano(),
	}
	l.keep(message)
	for s := range l.subscribers {
		if !s.push(message) {
			delete(l.subscribers, s)
		}
	}
}

// keep needs l.mu.
func (l *Log) keep(message apievents.Message) {
	if len(l.kept) < Kept {
		l.kept = append(l.kept, message)
		return
	}
	l.kept[l.oldest] = message
	l.oldest = (l.oldest + 1) % Kept
}

// Subscribe returns a channel of the messages that match accepts (nil: all):
// if since is not zero first those kept from then on, then new ones. The
// channel is closed at until (zero: never), when ctx ends, when the log is
// closed, or when the subscriber is too far behind.
func (l *Log) Subscribe(ctx context.Context, since, until time.Time, match func(apievents.Message) bool) (<-chan apievents.Message, error) {
	s := newSubscriber(until, match)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !since.IsZero() {
		for i := range l.kept {
			message := l.kept[(l.oldest+i)%len(l.kept)]
			if message.TimeNano >= since.UnixNano() {
				s.push(message)
			}
		}
	}
	if l.closed {
		s.end()
	} else {
		l.subscribers[s] = struct{}{}
	}
	l.pumps.Go(func() {
		s.pump(ctx)
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers, s)
	})
	return s.out, nil
}

// Close ends all subscriptions, once their channels are read or their
// contexts end, and waits for that.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	for s := range l.subscribers {
		s.end()
	}
	l.mu.Unlock()
	l.pumps.Wait()
}
