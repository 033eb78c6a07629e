package registry

import (
	"context"
	"slices"
	"sync"
)

// queue gives a bounded number of turns, first come, first served: a pull's
// lower layers are wanted first.
type queue struct {
	mu      sync.Mutex
	free    int             // guarded by mu
	waiting []chan struct{} // closed when their turn has come; guarded by mu
}

// join takes a place.
func (q *queue) join() *turn {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &turn{queue: q, come: make(chan struct{})}
	if q.free > 0 {
		q.free--
		close(t.come)
	} else {
		q.waiting = append(q.waiting, t.come)
	}
	return t
}

// turn is a place in the queue; leave gives it back, come or not.
type turn struct {
	queue *queue
	come  chan struct{}
}

func (t *turn) wait(ctx context.Context) error {
	select {
	case <-t.come:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *turn) leave() {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, t.come); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return
	}
	if len(q.waiting) > 0 {
		close(q.waiting[0])
		q.waiting = q.waiting[1:]
		return
	}
	q.free++
}
