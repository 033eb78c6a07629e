package libcontainer

import (
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

// Processes returns the ids of the container's processes, in the caller's pid
// namespace.
func (c *Container) Processes() ([]int, error) { return c.cgroup().Pids(true) }

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
