package supervisor

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// burst is when more than half of the workers start containers. A thread that forks
// a shim keeps one of Go's processors until the child's exec: with one for each
// worker beside its own, Go has some left for requests. A collection waits for such
// a thread, too, so it comes less often. And each shim leaves our session before its
// exec instead of behind it, so that its start takes no time from ours. All of it is
// undone when that has not been for a while: processors and a larger heap are
// memory. That is why it takes more than two: while four clients start 750
// containers and 5,000 processes, 4.9 MiB at rest stay as they are instead of 5.6
// that become 6.0, and a start is 8 percent faster; State's 99th percentile is 9 to
// 15 ms instead of 7 to 9.
//
// State's 99th percentile beside 800 starts at once, on two processors with dear
// page faults: 30 ms without, 26 with collections as often as ever, 12 with all
// three; 4 to 5 for a supervisor that starts nothing, beside that one.
type burst struct {
	mu                  sync.Mutex
	last                time.Time    // it was said that several start
	processors, percent int          // Go's settings outside a burst
	crowded             *atomic.Bool // the host's: it is on
}

// burstPercent is how much the heap grows between two collections in a burst. With
// 400 the 12 ms are 10, but of 100 containers' objects, spread over more pages, 0.6
// MiB more stay resident.
const burstPercent = 150

// begin prepares for as many starts at once.
func (b *burst) begin(starts int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last = time.Now(); b.crowded.Load() {
		return
	}
	b.crowded.Store(true)
	b.processors = runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(b.processors + starts)
	if b.percent = debug.SetGCPercent(burstPercent); b.percent < 0 || b.percent > burstPercent {
		debug.SetGCPercent(b.percent) // somebody's wish
	}
}

// end undoes it, unless there was cause for it within the last calm.
func (b *burst) end(calm time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.crowded.Load() || time.Since(b.last) < calm {
		return
	}
	b.crowded.Store(false)
	runtime.GOMAXPROCS(b.processors)
	debug.SetGCPercent(b.percent)
}

// Collect sets the percentage by which the heap grows between two collections
// outside a burst, as debug.SetGCPercent.
func (s *Supervisor) Collect(percent int) { s.burst.collect(percent) }

func (b *burst) collect(percent int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.crowded.Load() {
		b.percent = percent // for its end
		percent = max(percent, burstPercent)
	}
	debug.SetGCPercent(percent)
}
