package supervisor

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// settings returns Go's settings that a burst changes.
func settings() (processors, percent int) {
	percent = debug.SetGCPercent(-1)
	debug.SetGCPercent(percent)
	return runtime.GOMAXPROCS(0), percent
}

func TestABurstIsUndone(t *testing.T) {
	processors, percent := settings()
	var crowded atomic.Bool
	b := burst{crowded: &crowded}
	b.end(0) // of none
	for range 2 {
		b.begin(10)
		b.begin(10) // it is on
		b.end(time.Hour)
		if p, gc := settings(); p != processors+10 || gc != burstPercent || !crowded.Load() {
			t.Errorf("in a burst: %d processors, a heap that grows by %d percent, crowded %v", p, gc, crowded.Load())
		}
		b.end(0)
		b.end(0)
		if p, gc := settings(); p != processors || gc != percent || crowded.Load() {
			t.Errorf("after it: %d processors, a heap that grows by %d percent, crowded %v; before it %d and %d", p, gc, crowded.Load(), processors, percent)
		}
	}
}

func TestABurstLeavesALazierCollectorAlone(t *testing.T) {
	_, percent := settings()
	defer debug.SetGCPercent(percent)
	var crowded atomic.Bool
	b := burst{crowded: &crowded}
	for _, wish := range []int{-1, burstPercent + 1} {
		debug.SetGCPercent(wish)
		b.begin(1)
		if _, gc := settings(); gc != wish {
			t.Errorf("in a burst %d, expected %d", gc, wish)
		}
		b.end(0)
		if _, gc := settings(); gc != wish {
			t.Errorf("after a burst %d, expected %d", gc, wish)
		}
	}
}

func TestCollectDuringABurstIsForItsEnd(t *testing.T) {
	_, percent := settings()
	defer debug.SetGCPercent(percent)
	debug.SetGCPercent(400) // as at the start
	var crowded atomic.Bool
	b := burst{crowded: &crowded}
	b.begin(1)
	b.collect(50)
	if _, gc := settings(); gc != burstPercent {
		t.Errorf("in a burst %d, expected %d", gc, burstPercent)
	}
	b.end(0)
	if _, gc := settings(); gc != 50 {
		t.Errorf("after a burst %d, expected 50", gc)
	}
}
