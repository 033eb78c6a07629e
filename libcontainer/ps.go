package libcontainer

import (
	"errors"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

// Processes returns the ids of the container's processes, in the caller's pid
// namespace.
func (c *Container) Processes() ([]int, error) {
	pids, err := c.cgroup().Pids(true)
	if err != nil || len(pids) > 0 {
		return pids, err
	}
	if alive, err := c.initAlive(); err != nil || alive { // in no cgroup of its own
		return nil, errors.Join(errdefs.FailedPrecondition.Errorf("unable to get all container pids: the container has no cgroup"), err)
	}
	return nil, nil
}

// RunningCgroup returns the cgroup of a container that is not stopped, to watch
// and count.
func (c *Container) RunningCgroup() (*cgroup.Cgroup, error) {
	status, err := c.Status()
	if err != nil {
		return nil, err
	}
	if status == Stopped {
		return nil, errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "container with id %s is not running", c.ID)
	}
	return c.cgroup(), nil
}
