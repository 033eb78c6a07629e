package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// killPatience bounds the waiting for killed processes to be gone.
const killPatience = 10 * time.Second

// ParseSignal takes a number, or a name with or without SIG in any case.
func ParseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	signal := unix.SignalNum(name)
	if signal == 0 {
		return 0, errdefs.InvalidArgument.Errorf("unknown signal %q", text)
	}
	return signal, nil
}

// Kill sends a signal to the container's first process. SIGKILL also ends the
// other processes of a container that has no pid namespace of its own: the
// kernel does that only for namespaces (pid_namespaces(7)).
func Kill(ctx context.Context, c *Container, signal unix.Signal) error {
	fd, err := c.pidfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if signal == unix.SIGKILL && !firstOfNamespace(c.State.Pid) {
		return c.killCgroup(ctx)
	}
	err = c.signal(fd, signal)
	if errors.Is(err, unix.ESRCH) {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "container not running")
	}
	if err != nil {
		return fmt.Errorf("unable to signal init: %w", err)
	}
	if signal == unix.SIGKILL { // v1 lets a frozen process die only when it is thawed
		return c.cgroup().Thaw(ctx)
	}
	return nil
}

// signal sends one to the first process, which fd was opened for. Without the
// call (5.1, or a filter around us) it goes to the pid, which was the process's
// a moment ago.
func (c *Container) signal(fd int, signal unix.Signal) error {
	err := unix.PidfdSendSignal(fd, signal, nil, 0)
	if errors.Is(err, unix.ENOSYS) {
		return unix.Kill(c.State.Pid, signal)
	}
	return err
}

// KillAll sends a signal to every process in the container's cgroup. None
// there is fine: the container may have stopped.
func KillAll(ctx context.Context, c *Container, signal unix.Signal) error {
	if signal == unix.SIGKILL {
		return c.killCgroup(ctx)
	}
	return c.cgroup().Signal(signal)
}

func (c *Container) killCgroup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if err := c.cgroup().Kill(ctx); err != nil {
		return fmt.Errorf("unable to kill all processes: %w", err)
	}
	return nil
}

// firstOfNamespace reports whether the process is pid 1 of a namespace: the
// last number in its NSpid line, proc_pid_status(5). If that cannot be read it
// is taken for not, which kills more thoroughly.
func firstOfNamespace(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if numbers, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(numbers)
			return len(fields) > 0 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// fileOwner returns the user id of a file.
func fileOwner(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
