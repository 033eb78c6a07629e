package shim

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// child is a process that is waited for.
type child struct {
	pid    int
	pidfd  int
	source *source
	exited func(status unix.WaitStatus)
	absent bool // dead, and not ours yet
	lost   bool // somebody else has its status
}

// lostStatus stands for the status of a child that somebody else waited for.
const lostStatus = unix.WaitStatus(255 << 8)

// spawn starts a program and calls exited with its status, from the loop.
func (s *Shim) spawn(argv []string, files [3]int, exited func(unix.WaitStatus)) (*child, error) {
	pidfd := -1
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err != nil {
		return nil, err
	}
	return s.watch(pid, pidfd, exited)
}

// adopt waits for a process that became our child, dead already or not. One that
// cannot be watched is killed.
func (s *Shim) adopt(pid int, exited func(unix.WaitStatus)) (*child, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		killUnwatched(pid)
		return nil, fmt.Errorf("opening a pidfd of process %d: %w", pid, err)
	}
	return s.watch(pid, pidfd, exited)
}

// watch takes over pidfd. A process that cannot be watched is killed.
func (s *Shim) watch(pid, pidfd int, exited func(unix.WaitStatus)) (*child, error) {
	c := &child{pid: pid, pidfd: pidfd, exited: exited}
	var err error
	if c.source, err = s.add(pidfd, unix.EPOLLIN, func(uint32) { s.reap(c) }); err != nil {
		killUnwatched(pid)
		unix.Close(pidfd)
		return nil, err
	}
	s.children[pid] = c
	return c, nil
}

// killUnwatched kills a child by its pid, which cannot have become another's before
// reapStrays.
func killUnwatched(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }

// reap collects the status of a child whose pidfd says that it is dead.
func (s *Shim) reap(c *child) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(c.pid, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && pid == c.pid:
			s.buried(c, status)
		case err == nil: // it lives
		case unix.PidfdSendSignal(c.pidfd, 0, nil, 0) == nil:
			// ECHILD, and it is there: crun forks once more, and what ran the
			// process has not exited yet. When it does, we get a SIGCHLD.
			c.absent = true
			s.pause(c.source)
		default:
			logf("waiting for process %d: %v", c.pid, err)
			c.lost = true
			s.buried(c, lostStatus)
		}
		return
	}
}

func (s *Shim) buried(c *child, status unix.WaitStatus) {
	s.remove(c.source)
	unix.Close(c.pidfd)
	c.pidfd = -1
	delete(s.children, c.pid)
	c.exited(status)
}

// reapStrays reaps orphans that were given to us. While the runtime is at work
// one of them may be a process whose pid we are about to learn.
func (s *Shim) reapStrays() {
	for s.calls == 0 {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
		if c := s.children[pid]; c != nil {
			s.buried(c, status)
		}
	}
}

// kill sends a signal to a child that has not been reaped.
func (c *child) kill(sig unix.Signal) error {
	if c == nil || c.pidfd < 0 {
		return unix.ESRCH
	}
	err := unix.PidfdSendSignal(c.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return unix.Kill(c.pid, sig) // not reaped: the pid is still its
	}
	return err
}
