package supervisor_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestHundredsOfCreatesAtOnce: none fails, and State answers meanwhile.
func TestHundredsOfCreatesAtOnce(t *testing.T) {
	s := newStack(t)
	many := size(t, 200, 800)
	bundles := make([]string, many)
	for i := range bundles {
		bundles[i] = s.bundle("exec sleep 100000")
	}
	over := make(chan struct{})
	var asked sync.WaitGroup
	var took []time.Duration
	asked.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); !closed(over); <-tick.C {
			began := time.Now()
			if _, err := s.client.State(t.Context(), &api.StateRequest{}); err != nil {
				t.Errorf("State: %v", err)
				return
			}
			took = append(took, time.Since(began))
		}
	})
	var all sync.WaitGroup
	began := time.Now()
	for i := range many {
		all.Go(func() {
			if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: fmt.Sprintf("c%d", i), BundlePath: bundles[i]}); err != nil {
				t.Errorf("c%d: %v", i, err)
			}
		})
	}
	all.Wait()
	close(over)
	asked.Wait()
	slices.Sort(took)
	t.Logf("%d containers in %v; State %d times: median %v, p99 %v, at most %v", many, time.Since(began), len(took),
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	state, err := s.client.State(t.Context(), &api.StateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	running := 0
	for _, c := range state.Containers {
		if c.Status == "running" {
			running++
		}
	}
	if running != many {
		t.Errorf("%d containers run, expected %d", running, many)
	}
	s.deleteAll(state.Containers)
}

// deleteAll deletes by force, a few at a time.
func (s *stack) deleteAll(containers []*api.Container) {
	slots := make(chan struct{}, 10)
	var all sync.WaitGroup
	for _, c := range containers {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if _, err := s.client.DeleteContainer(s.t.Context(), &api.DeleteContainerRequest{Id: c.Id, Force: true}); err != nil {
				s.t.Error(err)
			}
		})
	}
	all.Wait()
}
