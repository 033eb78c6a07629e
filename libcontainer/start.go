package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// StartOptions are what start takes besides the container.
type StartOptions struct {
	NotifySocket string // see CreateOptions; ignored if create had none
}

// Start lets a created container's process go on to execve. With a NotifySocket it
// waits until the container is ready or has ended.
func Start(ctx context.Context, c *Container, opts StartOptions) error {
	status, err := c.Status()
	if err != nil {
		return err
	}
	switch status {
	case Created:
	case Stopped:
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "cannot start a container that has stopped")
	case Paused:
		return errdefs.FailedPrecondition.Coded(errdefs.Paused, c.ID, "cannot start a container in the paused state")
	default:
		return errdefs.FailedPrecondition.Coded(errdefs.AlreadyStarted, c.ID, "cannot start an already running container")
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	failpoint.At("start-checked")
	hooks, err := c.listenToHooks(spec)
	if err != nil {
		return err
	}
	defer hooks.Close() // of nil it does nothing
	notify := c.notifyBy(opts.NotifySocket)
	defer notify.close()
	if err := c.letGo(ctx, hooks, spec, notify); err != nil {
		return err
	}
	failpoint.At("start-fifo-written")
	if err := c.poststart(ctx, spec); err != nil {
		return err
	}
	return notify.relay(ctx, c.State.Pid)
}

// letGo writes to exec.fifo, which the process reads. Without a reader, which
// the process is as long as it lives, the open fails. Removing the name first
// decides between two starts, and so whose socket the container's is.
func (c *Container) letGo(ctx context.Context, hooks *os.File, spec *specs.Spec, notify *notifySocket) error {
	path := filepath.Join(c.Dir(), FifoFile)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENXIO):
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "cannot start a container that has stopped")
	case errors.Is(err, fs.ErrNotExist):
		return errdefs.FailedPrecondition.Coded(errdefs.AlreadyStarted, c.ID, "cannot start an already running container")
	case err != nil:
		return fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	failpoint.At("start-fifo-opened")
	if err := os.Remove(path); err != nil {
		return errdefs.FailedPrecondition.Coded(errdefs.AlreadyStarted, c.ID, "cannot start an already running container")
	}
	failpoint.At("start-fifo-removed")
	if err := notify.bind(); err != nil {
		return errors.Join(err, c.killInit())
	}
	if _, err := unix.Write(fd, []byte{0}); err != nil {
		return fmt.Errorf("starting the container's process: %w", err)
	}
	failpoint.At("start-byte-written")
	if hooks != nil {
		if err := awaitHooks(ctx, hooks, spec); err != nil {
			return errors.Join(err, c.killInit())
		}
		failpoint.At("start-hooks-ran")
	}
	return awaitExec(fd)
}

// listenToHooks opens what the process tells of its startContainer hooks by; nil if
// there are none. Of two starts, both of which listen, only one lets it go.
func (c *Container) listenToHooks(spec *specs.Spec) (*os.File, error) {
	if len(startHooks(spec)) == 0 {
		return nil, nil
	}
	hooks, err := os.OpenFile(filepath.Join(c.Dir(), HooksFile), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.FailedPrecondition.Errorf("the container was created by another version of the runtime, which would have run its startContainer hooks: %w", err)
	}
	return hooks, err
}

// awaitHooks waits until the hooks are done. A failure ends the container
// (config.md, hooks).
func awaitHooks(ctx context.Context, hooks *os.File, spec *specs.Spec) error {
	stop := context.AfterFunc(ctx, func() { hooks.SetReadDeadline(time.Unix(1, 0)) }) //nolint:errcheck // a fifo has deadlines
	defer stop()
	said, err := io.ReadAll(io.LimitReader(hooks, nsenter.PacketSize+nsenter.MaxOutput))
	if err != nil {
		return fmt.Errorf("waiting for startContainer hooks: %w", errors.Join(ctx.Err(), err))
	}
	if len(said) < nsenter.PacketSize {
		return errdefs.Internal.Errorf("the container's process ended before its startContainer hooks were done")
	}
	m, err := nsenter.DecodeMessage(said[:nsenter.PacketSize])
	switch {
	case err != nil:
		return err
	case m.Type == nsenter.MessageReady:
		return nil
	case m.Type != nsenter.MessageError:
		return unexpected(m)
	}
	list := startHooks(spec)
	if !m.OfHook() || m.Value < 0 || m.Value >= int64(len(list)) {
		return errdefs.Internal.Errorf("running startContainer hooks: operation %d: %w", m.Op, syscall.Errno(m.Errno))
	}
	hook := &list[m.Value]
	return startHookError(hook.Path, hookTimeout(hook), m, said[nsenter.PacketSize:])
}

// awaitExec waits until the process has gone on to execve, or ended: then the
// fifo has no reader any more. Before, it is hidden from an unprivileged user,
// who could not exec in the container yet. Root need not wait.
func awaitExec(fifo int) error {
	if !theCaller().unprivileged {
		return nil
	}
	for end := time.Now().Add(killPatience); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fifo)}}, int(time.Until(end).Milliseconds()))
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return errdefs.DeadlineExceeded.Errorf("the container's process did not go on to its command")
}

// Spec reads the container's copy of its config.json.
func (c *Container) Spec() (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(c.Dir(), ConfigFile))
	if err != nil {
		return nil, fmt.Errorf("reading the container's spec: %w", err)
	}
	spec := new(specs.Spec)
	if err := plainjson.Unmarshal(data, spec); err != nil {
		return nil, errdefs.DataLoss.Errorf("reading the container's spec: %w", err)
	}
	return spec, nil
}

// poststart runs the hooks after the process went on. A failure ends the
// container, as in runc.
func (c *Container) poststart(ctx context.Context, spec *specs.Spec) error {
	if spec.Hooks == nil || len(spec.Hooks.Poststart) == 0 {
		return nil
	}
	if err := RunHooks(ctx, "poststart", spec.Hooks.Poststart, c.hookState(specs.StateRunning)); err != nil {
		return errors.Join(err, c.killInit())
	}
	failpoint.At("start-poststart-ran")
	return nil
}

// killInit ends the container's first process, by a descriptor: the pid may be
// another's by now.
func (c *Container) killInit() error {
	fd, err := c.pidfd()
	if errdefs.CodeOf(err) == errdefs.NotRunning {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := c.signal(fd, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing the container's process: %w", err)
	}
	return nil
}

// pidfd opens the container's first process. The start time is compared after
// the open: from then on the descriptor cannot become another's. Before 5.3 it
// is the process's directory in /proc, which takes signals as well.
func (c *Container) pidfd() (int, error) {
	gone := errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "container not running")
	fd, err := openProcess(c.State.Pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return -1, gone
	}
	if err != nil {
		return -1, fmt.Errorf("opening the container's process: %w", err)
	}
	alive, err := c.initAlive()
	if err != nil || !alive {
		unix.Close(fd)
		return -1, errors.Join(gone, err)
	}
	return fd, nil
}

func openProcess(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ENOSYS) {
		return unix.Open("/proc/"+strconv.Itoa(pid), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return fd, err
}
