package supervisor

import (
	"sync"
	"testing"
	"time"
)

func TestQueueKeepsOrderPerContainer(t *testing.T) {
	var q queues
	var mu sync.Mutex // guards order
	var order []int
	for i := range 100 {
		q.put("a", exclusive, func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, i)
		})
	}
	if !q.drain(time.Minute) {
		t.Fatal("work is left")
	}
	for i, got := range order {
		if got != i {
			t.Fatalf("work %d ran as number %d", got, i)
		}
	}
	if tasks, containers := q.depth(); tasks != 0 || containers != 0 {
		t.Errorf("%d tasks of %d containers are left", tasks, containers)
	}
}

func TestStuckContainerDelaysNoOther(t *testing.T) {
	var q queues
	stuck := make(chan struct{})
	q.put("stuck", exclusive, func() { <-stuck })
	done := make(chan struct{})
	q.put("other", exclusive, func() { close(done) })
	<-done
	if q.drain(time.Millisecond) {
		t.Error("drain does not wait for stuck work")
	}
	close(stuck)
	if !q.drain(time.Minute) {
		t.Error("work is left")
	}
}

func TestSharedWorkRunsSideBySideAndExclusiveAlone(t *testing.T) {
	var q queues
	release := make(chan struct{})
	var shares sync.WaitGroup
	shares.Add(2)
	for range 2 {
		q.put("a", shared, func() { shares.Done(); <-release })
	}
	shares.Wait() // both run: neither waits for the other
	alone, late := make(chan struct{}), make(chan struct{})
	q.put("a", exclusive, func() { close(alone) })
	q.put("a", shared, func() {
		select {
		case <-alone:
		default:
			t.Error("shared work overtook exclusive work")
		}
		close(late)
	})
	select {
	case <-alone:
		t.Error("exclusive work runs beside shared work")
	default:
	}
	close(release)
	<-late
}
