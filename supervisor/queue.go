package supervisor

import (
	"sync"
	"time"
)

// mode says what may run beside a piece of work on the same container.
type mode bool

const (
	exclusive mode = false // nothing: create, start, pause, update, delete
	shared    mode = true  // other shared work: added processes start side by side
)

// queues holds one queue of work per container id. Work for one id begins in
// the order in which it was put; exclusive work also waits for all before it
// and is waited for by all after it. Ids know nothing of each other.
//
// Signals, resizes and questions are not queued: they are what ends or
// explains work that hangs. A queue exists while it has work.
type queues struct {
	mu    sync.Mutex // guards what follows
	byID  map[string]*queue
	tasks int
	idle  chan struct{} // closed when tasks falls to 0; nil unless somebody waits
}

type queue struct {
	waiting []work
	running int // at most one if it is exclusive
	alone   bool
}

type work struct {
	mode mode
	run  func()
}

// put appends work to id's queue. It never blocks.
func (q *queues) put(id string, mode mode, run func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.byID == nil {
		q.byID = map[string]*queue{}
	}
	if q.byID[id] == nil {
		q.byID[id] = &queue{}
	}
	one := q.byID[id]
	one.waiting = append(one.waiting, work{mode, run})
	q.tasks++
	q.advance(id, one)
}

// advance starts what may run now; q.mu is held.
func (q *queues) advance(id string, one *queue) {
	for len(one.waiting) > 0 {
		next := one.waiting[0]
		if one.running > 0 && (one.alone || next.mode == exclusive) {
			return
		}
		one.waiting = one.waiting[1:]
		one.running, one.alone = one.running+1, next.mode == exclusive
		go func() {
			defer q.done(id, one)
			next.run()
		}()
	}
	if one.running == 0 {
		delete(q.byID, id)
	}
}

func (q *queues) done(id string, one *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one.running--
	q.advance(id, one)
	q.tasks--
	if q.tasks == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// drain waits for at most bound until there is no work, and reports whether
// there is none.
func (q *queues) drain(bound time.Duration) bool {
	q.mu.Lock()
	if q.tasks == 0 {
		q.mu.Unlock()
		return true
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		return false
	}
}

// depth returns how much work there is and for how many containers.
func (q *queues) depth() (tasks, containers int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tasks, len(q.byID)
}
