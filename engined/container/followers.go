package container

import "sync"

// followers are the goroutines that work after an event: they belong to Run,
// which waits for them. (A WaitGroup does not allow one to be added while
// somebody waits, and a start may add one at any time.)
type followers struct {
	mu     sync.Mutex // guards what follows
	active int
	idle   chan struct{} // closed when active comes to 0; nil if nobody waits
	closed bool
}

// Go runs do, unless Run has ended: then the next start of engined does it.
func (f *followers) Go(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.active++
	go func() {
		defer f.done()
		do()
	}()
}

func (f *followers) done() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active--; f.active == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// Wait returns when none is active.
func (f *followers) Wait() {
	f.mu.Lock()
	if f.active == 0 {
		f.mu.Unlock()
		return
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	<-idle
}

// close lets no more begin and waits for those that have.
func (f *followers) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.Wait()
}
