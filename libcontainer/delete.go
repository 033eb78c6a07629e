package libcontainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/proto/errdefs"
)

// Delete removes what a container left: processes, cgroup, directory. One that
// was created but not started is killed, as runc does, whose callers count on
// it: containerd deletes its created tasks that way. (The spec wants an error,
// runtime.md, delete.) One that runs is removed only by force. Force also
// removes what an interrupted create or delete left, and is content with
// nothing.
func Delete(ctx context.Context, root, id string, force bool) error {
	c, err := Open(root, id)
	switch {
	case err == nil:
		return c.delete(ctx, force)
	case !force || errdefs.KindOf(err) == errdefs.InvalidArgument:
		return err
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return err
	}
	c = &Container{Root: root, ID: id}
	if c.load(MakingFile) == nil {
		return c.delete(ctx, true)
	}
	return deleteHalf(ctx, c)
}

func (c *Container) delete(ctx context.Context, force bool) error {
	status, err := c.Status()
	if err != nil && !force {
		return err
	}
	if status != Stopped && status != Created && !force {
		return errdefs.FailedPrecondition.Coded(errdefs.Running, c.ID, "cannot delete container %s that is not stopped: %s", c.ID, status)
	}
	failpoint.At("delete-checked")
	if err := c.end(ctx); err != nil {
		return err
	}
	failpoint.At("delete-ended")
	if err := c.cgroup().Remove(ctx); err != nil {
		return fmt.Errorf("unable to remove container's cgroup: %w", err)
	}
	if err := errors.Join(c.unmountRoot(), c.State.Resctrl.Remove()); err != nil {
		return err
	}
	failpoint.At("delete-cgroup-removed")
	c.poststop(ctx)
	failpoint.At("delete-poststop-ran")
	return os.RemoveAll(c.Dir())
}

// end kills the container's first process, and whatever else is in its cgroup,
// and waits until they are gone.
func (c *Container) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	alive, err := c.initAlive()
	if err != nil {
		return err
	}
	if alive {
		if err := c.endInit(ctx); err != nil && errdefs.CodeOf(err) != errdefs.NotRunning {
			return err
		}
	}
	return c.cgroup().Kill(ctx)
}

func (c *Container) endInit(ctx context.Context) error {
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := c.signal(fd, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing the container's process: %w", err)
	}
	failpoint.At("delete-init-killed")
	if err := c.cgroup().Thaw(ctx); err != nil {
		return err
	}
	failpoint.At("delete-init-thawed")
	if err := awaitExit(ctx, fd); err != nil {
		return fmt.Errorf("container init still running: %w", err)
	}
	return nil
}

// awaitExit waits until the process of a pidfd has ended, reaped or not. It
// looks at ctx every 100 ms.
func awaitExit(ctx context.Context, fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// poststop runs the hooks, all of them: a failure is a warning (config.md,
// POSIX-platform hooks). The spec is decoded only if it names any.
func (c *Container) poststop(ctx context.Context) {
	config, err := os.ReadFile(filepath.Join(c.Dir(), ConfigFile))
	if err != nil || !bytes.Contains(config, []byte("poststop")) {
		return
	}
	var spec specs.Spec
	if err := plainjson.Unmarshal(config, &spec); err != nil {
		slog.Warn("poststop hooks not run: " + err.Error())
		return
	}
	if spec.Hooks == nil {
		return
	}
	state := c.hookState(specs.StateStopped)
	state.Pid = 0 // which may be another's
	for i := range spec.Hooks.Poststop {
		if err := RunHooks(ctx, "poststop", spec.Hooks.Poststop[i:i+1], state); err != nil {
			slog.Warn(err.Error())
		}
	}
}

// deleteHalf removes a container without a readable state: create was killed
// before it wrote one. Its cgroup is found again from its config, and left
// alone if another container of this root is there.
func deleteHalf(ctx context.Context, c *Container) error {
	spec, err := c.Spec()
	if err == nil {
		err = c.removeCgroup(ctx, spec)
		if err != nil {
			return err
		}
		if err := resctrlLeft(spec, c.ID).Remove(); err != nil {
			return err
		}
	}
	if err := c.unmountRoot(); err != nil {
		return err
	}
	failpoint.At("delete-half-cgroup-removed")
	return os.RemoveAll(c.Dir())
}

func (c *Container) removeCgroup(ctx context.Context, spec *specs.Spec) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := c.removeAt(ctx, cgroup.Locate(layout, spec, c.ID)); err != nil {
		return err
	}
	location, ok := cgroup.LocateUnit(layout, spec, c.ID)
	if !ok {
		return nil
	}
	return c.removeAt(ctx, location)
}

// removeAt removes the cgroup at a location unless another container has it.
func (c *Container) removeAt(ctx context.Context, location cgroup.Location) error {
	entries, err := os.ReadDir(c.Root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		other := &Container{Root: c.Root, ID: entry.Name()}
		if (other.load(StateFile) == nil || other.load(MakingFile) == nil) && reflect.DeepEqual(other.State.Cgroup, location) {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	groups := []*cgroup.Cgroup{cgroup.At(location)}
	if len(location.V1) > 0 && location.V2 != "" { // a process is born there, and joins v1's later
		groups = append(groups, cgroup.At(cgroup.Location{V2: location.V2}))
	}
	for _, group := range groups {
		pid, err := c.foreign(group)
		if err != nil {
			return err
		}
		if pid != 0 {
			slog.Warn(fmt.Sprintf("the cgroup of %s is left alone: process %d in it is older than the container", c.ID, pid))
			return nil
		}
	}
	for _, group := range groups {
		if err := group.Kill(ctx); err != nil {
			return err
		}
	}
	failpoint.At("delete-half-killed")
	return groups[0].Remove(ctx)
}

// foreign finds a process in the cgroup that is older than the container, 0 if there is
// none. With one the cgroup is somebody else's, and create was killed before it refused
// that.
func (c *Container) foreign(cg *cgroup.Cgroup) (pid int, err error) {
	pids, err := cg.Pids(true)
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	born, err := c.born()
	if err != nil {
		return 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	const slack = time.Second // the other clock may be set meanwhile
	made := time.Duration(now.Nano()) - time.Since(born) - slack
	for _, pid := range pids {
		stat, err := readStat(pid)
		if err == nil && time.Duration(stat.start)*tick < made {
			return pid, nil
		}
	}
	return 0, nil
}

// born is when the directory was made or, where the file system does not know, when the
// config was last written.
func (c *Container) born() (time.Time, error) {
	var found unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, c.Dir(), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &found)
	if err == nil && found.Mask&unix.STATX_BTIME != 0 {
		return time.Unix(found.Btime.Sec, int64(found.Btime.Nsec)), nil
	}
	kept, err := os.Stat(filepath.Join(c.Dir(), ConfigFile))
	if err != nil {
		return time.Time{}, err
	}
	return kept.ModTime(), nil
}

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on all architectures that
// Go knows, proc_pid_stat(5).
const tick = time.Second / 100
