package container

import (
	"os/exec"
	"testing"
	"testing/synctest"
	"time"
)

// reapedPid returns the pid of a process that was reaped.
func reapedPid(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestACommandWhoseProcessIsGoneIsWaitedFor(t *testing.T) {
	pid := reapedPid(t)
	synctest.Test(t, func(t *testing.T) {
		e := &command{done: make(chan struct{}), started: true, pid: pid}
		go func() {
			time.Sleep(time.Second) // the exit is on its way
			e.end(4)
		}()
		e.settle(t.Context())
		if e.mu.Lock(); e.ended.IsZero() || e.code != 4 {
			t.Errorf("not waited for: %v, code %d", e.ended, e.code)
		}
		e.mu.Unlock()
	})
}

func TestWaitingForACommandsExitIsBounded(t *testing.T) {
	pid := reapedPid(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		(&command{done: make(chan struct{}), started: true, pid: pid}).settle(t.Context())
		if waited := time.Since(began); waited != settleTimeout {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestARunningCommandIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		(&command{done: make(chan struct{}), started: true, pid: 1}).settle(t.Context())
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v", waited)
		}
	})
}
