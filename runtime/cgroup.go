package runtime

import (
	"context"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// layout is where the machine's cgroups are. It is looked for once: a supervisor
// that begins with hundreds of containers needs it for each.
type layout struct {
	mu    sync.Mutex
	found *cgroup.Layout
}

func (l *layout) get() (cgroup.Layout, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found == nil {
		found, err := cgroup.Detect()
		if err != nil {
			return cgroup.Layout{}, err
		}
		l.found = &found
	}
	return *l.found, nil
}

// cgroup returns the container's cgroup by way of its init. It is NotFound if
// init does not run.
func (c *Container) cgroup() (*cgroup.Cgroup, error) {
	started, err := c.initStarted()
	if err != nil {
		return nil, errdefs.NotFound.Errorf("container %s has not started: %w", c.record.ID, err)
	}
	layout, err := c.host.cgroups.get()
	if err != nil {
		return nil, fmt.Errorf("finding the machine's cgroups: %w", err)
	}
	group, err := layout.Of(started.Pid)
	// Asked afterwards: what was read was of the process that started then.
	if start, statErr := shim.StartTime(started.Pid); statErr != nil || start != started.Start {
		return nil, errdefs.NotFound.Errorf("the first process of container %s is gone", c.record.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the cgroup of container %s: %w", c.record.ID, err)
	}
	return group, nil
}

// initStarted is what started.json says of init. It is read once: only the time
// changes, when a container that was created is started.
func (c *Container) initStarted() (*Started, error) {
	if known := c.init.Load(); known != nil {
		return known, nil
	}
	var started Started
	if err := shim.ReadFile(c.processFile(Init, shim.StartedFile), &started); err != nil {
		return nil, err
	}
	c.init.Store(&started)
	return &started, nil
}

// notOurs refuses a cgroup that this process is in, too: a container without
// one of its own is in the shim's, which may be ours.
func notOurs(group *cgroup.Cgroup) error {
	pids, err := group.Pids(true)
	if err != nil {
		return err
	}
	if slices.Contains(pids, os.Getpid()) {
		return errdefs.FailedPrecondition.Errorf("the container has no cgroup of its own")
	}
	return nil
}

// killCgroup kills every process of a container whose init is still there.
// Without a pid namespace init's death alone would leave the others.
func (c *Container) killCgroup(ctx context.Context) error {
	group, err := c.cgroup()
	if err != nil || notOurs(group) != nil {
		return nil // then the runtime's delete is all there is
	}
	// Killed they are at once; how soon they are reaped is their parent's affair.
	ctx, cancel := context.WithTimeout(ctx, c.host.Limits.Shim)
	defer cancel()
	if err := group.Kill(ctx); err != nil {
		return fmt.Errorf("killing the cgroup of container %s: %w", c.record.ID, err)
	}
	return nil
}

// Pids lists every process in the container's cgroup, in this process's pid
// namespace.
func (c *Container) Pids() ([]int, error) {
	group, err := c.cgroup()
	if err != nil {
		return nil, err
	}
	return group.Pids(true)
}

// Stats reads the counters of the container's cgroup and of the network
// interfaces that its first process sees.
func (c *Container) Stats() (cgroup.Stats, []Interface, error) {
	group, err := c.cgroup()
	if err != nil {
		return cgroup.Stats{}, nil, err
	}
	stats, err := group.Stats()
	if err != nil {
		return stats, nil, fmt.Errorf("reading the counters of container %s: %w", c.record.ID, err)
	}
	interfaces, err := c.interfaces()
	return stats, interfaces, err
}

// OOMs yields how many of the container's processes the kernel has killed for
// lack of memory, whenever that is above known and what was yielded before. It
// ends when ctx does or the cgroup is gone.
func (c *Container) OOMs(ctx context.Context, known uint64) (iter.Seq[uint64], error) {
	group, err := c.cgroup()
	if err == nil {
		err = notOurs(group)
	}
	if err != nil {
		return nil, err
	}
	return group.OOMs(ctx, known)
}
