package cgroup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Kill kills every process in the cgroup and below and returns when none is
// left, or ctx ends. A cgroup that is gone has none.
func (c *Cgroup) Kill(ctx context.Context) error {
	if c.unified() {
		err := write(c.location.V2, "cgroup.kill", "1")
		if err == nil {
			return waitEvent(ctx, c.location.V2, "populated", 0)
		}
		exists := unix.Access(c.location.V2, unix.F_OK) == nil
		if !gone(err) || !exists {
			return ignoreGone(err)
		}
		// Linux before 5.14 has no cgroup.kill
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		left, err := c.killOnce(ctx)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("killing the %d processes of the cgroup: %w", left, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// Signal sends a signal to every process in the cgroup and below. A pid may be
// another's by the time it is used: one goes by a descriptor, to what is still
// in the cgroup after it was opened.
func (c *Cgroup) Signal(signal unix.Signal) error {
	pids, err := c.Pids(true)
	if err != nil {
		return err
	}
	handles := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range handles {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch err {
		case nil:
			handles[pid] = fd
		case unix.ENOSYS:
			handles[pid] = -1
		case unix.ESRCH:
		default:
			return fmt.Errorf("unable to signal process %d: %w", pid, err)
		}
	}
	if pids, err = c.Pids(true); err != nil {
		return err
	}
	for _, pid := range pids {
		handle, opened := handles[pid]
		if !opened {
			continue // forked since
		}
		if err := signalOne(handle, pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("unable to signal process %d: %w", pid, err)
		}
	}
	return nil
}

// signalOne goes by the pid where there are no descriptors (5.3) or no signals
// by them (5.1).
func signalOne(handle, pid int, signal unix.Signal) error {
	if handle < 0 {
		return unix.Kill(pid, signal)
	}
	err := unix.PidfdSendSignal(handle, signal, nil, 0)
	if err == unix.ENOSYS {
		return unix.Kill(pid, signal)
	}
	return err
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// killOnce freezes the cgroup, so that none forks away, sends SIGKILL to all,
// thaws it and waits for them. It returns how many it found.
func (c *Cgroup) killOnce(ctx context.Context) (found int, err error) {
	pids, err := c.Pids(true)
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	frozen := c.FreezerDir() != "" && c.Freeze(ctx) == nil // best effort: the loop catches what forks
	pids, err = c.Pids(true)
	handles := killAll(pids)
	if frozen {
		err = errors.Join(err, c.thaw())
	}
	for _, fd := range handles {
		err = errors.Join(err, awaitExit(ctx, fd))
		unix.Close(fd)
	}
	return len(pids), err
}

// killAll kills by pidfd, while the cgroup is frozen: a pid read from it is
// then still the same process. It returns the pidfds.
func killAll(pids []int) []int {
	var handles []int
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			if err == unix.ENOSYS || err == unix.EPERM {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !(err == unix.ENOSYS && unix.Kill(pid, unix.SIGKILL) == nil) {
			unix.Close(fd)
			continue
		}
		handles = append(handles, fd)
	}
	return handles
}

// awaitExit waits until the process of a pidfd has exited.
func awaitExit(ctx context.Context, fd int) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
