package events

import (
	"context"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"
)

// subscriber is one reader: a queue that Publish fills and pump empties.
type subscriber struct {
	match func(apievents.Message) bool
	until time.Time
	out   chan apievents.Message
	wake  chan struct{} // has one element if the queue changed

	mu    sync.Mutex // guards what follows
	queue []apievents.Message
	ended bool
}

func newSubscriber(until time.Time, match func(apievents.Message) bool) *subscriber {
	return &subscriber{match: match, until: until, out: make(chan apievents.Message), wake: make(chan struct{}, 1)}
}

// push queues a message for the subscriber if it asked for it, and says
// whether it is still there.
func (s *subscriber) push(message apievents.Message) bool {
	if s.match != nil && !s.match(message) {
		return true
	}
	if !s.until.IsZero() && message.TimeNano > s.until.UnixNano() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == Backlog {
		s.ended, s.queue = true, nil
	}
	if !s.ended {
		s.queue = append(s.queue, message)
	}
	s.signal()
	return !s.ended
}

// end lets pump return once the queue is empty.
func (s *subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *subscriber) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (s *subscriber) take() (messages []apievents.Message, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, s.queue = s.queue, nil
	return messages, s.ended
}

// pump moves messages from the queue to the channel until the end.
func (s *subscriber) pump(ctx context.Context) {
	defer close(s.out)
	var timeout <-chan time.Time
	if !s.until.IsZero() {
		timer := time.NewTimer(time.Until(s.until))
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		messages, ended := s.take()
		for _, message := range messages {
			select {
			case s.out <- message:
			case <-ctx.Done():
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-s.wake:
		case <-timeout:
			s.end() // one more turn: what was published before until is told
		case <-ctx.Done():
			return
		}
	}
}
