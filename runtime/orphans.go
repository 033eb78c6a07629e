package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// BecomeSubreaper makes the orphans of shims that die children of this process,
// as long as their shims were. See adoptOrphans.
func BecomeSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// adoptOrphans reaps the container's processes once they are dead. Whoever else
// would has to do it at once: the first process of a pid namespace cannot end
// before the processes added to it are reaped, and their parent, the shim, is
// dead. Those that are not our children are not ours to reap.
func (c *Container) adoptOrphans() {
	processes, err := c.readProcesses()
	if err != nil {
		return
	}
	for _, p := range processes {
		if p.Started == nil {
			continue
		}
		orphan, err := findProcess(p.Started.Pid, p.Started.Start, true)
		if err != nil {
			c.host.Logger.Warn("watching a dead shim's process", "container", c.record.ID, "process", p.Name, "error", err)
		}
		if orphan != nil {
			orphan.exited() // which reaps it
		}
	}
}

// ReapStrays reaps until ctx ends what dead shims leave to us, when it ends: without a
// pid namespace every process of a container whose parent ended first, with one those
// that a dead shim had added without a word of it, for which its first process waits, and
// what a killed runtime or a hook had begun. It is for a process that waits for all
// children in other sessions by a pidfd, as we do for shims.
func ReapStrays(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reapStrays()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

// reapStrays looks at the children of the first thread, which are few: the kernel gives
// orphans to that, and other threads have those that they began themselves. What package
// os waits for is in our session: no runtime makes one of its own.
func reapStrays() {
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid())) // of kernels that can restore processes
	for field := range bytes.FieldsSeq(children) {
		pid, err := strconv.Atoi(string(field))
		if err != nil {
			continue
		}
		if session, err := unix.Getsid(pid); err == nil && session != own {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
}

// endCalls kills what a dead shim had called, and waits until it has ended: a runtime
// that goes on makes the container again whose deletion it did not see. It is in the
// shim's process group, in which no container's process ever is.
func (c *Container) endCalls(ctx context.Context) error {
	var self shim.Self
	if shim.ReadFile(filepath.Join(c.dir, shim.SelfFile), &self) != nil {
		return nil // without it the shim has called nobody
	}
	group, err := c.groupOf(self)
	if err != nil {
		return fmt.Errorf("looking for what shim %d has called: %w", self.Pid, err)
	}
	var failed []error
	for _, p := range group {
		if err := p.kill(); err != nil {
			failed = append(failed, fmt.Errorf("killing process %d, which shim %d has called: %w", p.pid, self.Pid, err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.host.Limits.Shim)
	defer cancel()
	for _, p := range group {
		if err := p.wait(ctx); err != nil {
			failed = append(failed, errdefs.Unavailable.Errorf("process %d, which shim %d has called, was killed and does not end: %w", p.pid, self.Pid, err))
		}
	}
	return errors.Join(failed...)
}

// groupOf returns the processes of a dead shim's group. The number may be another's by
// now: the group is the shim's if one in it has this container's directory among its
// arguments, as every call of the runtime has.
func (c *Container) groupOf(self shim.Self) (group []*shimProcess, err error) {
	ours := false
	defer func() {
		if !ours || err != nil {
			for _, p := range group {
				p.pidfd.Close()
			}
			group = nil
		}
	}()
	directory, err := filepath.EvalSymlinks(c.dir) // as the shim sees it
	if err != nil {
		return nil, err
	}
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range pids {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == self.Pid || !inGroup(pid, self.Pid) {
			continue
		}
		p, err := openProcess(pid, true)
		if err != nil {
			return group, err
		}
		if p == nil {
			continue
		}
		group = append(group, p)
		arguments, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		ours = ours || bytes.Contains(arguments, []byte(directory+"/"))
	}
	return group, nil
}

// inGroup reports whether the process is in the group and session that a leader made.
func inGroup(pid, leader int) bool {
	group, err := unix.Getpgid(pid)
	if err != nil || group != leader {
		return false
	}
	session, err := unix.Getsid(pid)
	return err == nil && session == leader
}
