package shim

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A process whose end nobody would be told of does not stay.
func TestAChildThatCannotBeWatchedIsKilled(t *testing.T) {
	sleep := exec.Command("sleep", "20")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(l.epoll)
	l.epoll = -1
	s := &Shim{loop: l, children: map[int]*child{}}
	if c, err := s.adopt(sleep.Process.Pid, nil); c != nil || !errors.Is(err, unix.EBADF) {
		t.Errorf("%v, %v", c, err)
	}
	_ = sleep.Wait()
	if status := sleep.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGKILL {
		t.Errorf("it ended with %v", sleep.ProcessState)
	}
}
