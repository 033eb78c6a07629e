package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// RunOptions are what run takes besides create's.
type RunOptions struct {
	CreateOptions
	Detach      bool
	Keep        bool // the container stays when its process has ended
	NoSubreaper bool // orphans of the container are not ours
}

// Run creates and starts a container in one go, without exec.fifo. Attached,
// it waits for the process, deletes the container and returns the status.
func Run(ctx context.Context, opts RunOptions) (status int, err error) {
	mode := attached
	if opts.Detach {
		mode = detached
	}
	l, err := newLaunch(opts.CreateOptions, mode)
	if err != nil {
		return 0, err
	}
	defer l.undo.OnError(&err)
	defer l.close()
	if mode == detached {
		return 0, l.start(ctx)
	}
	if !opts.NoSubreaper {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 0, fmt.Errorf("becoming the subreaper: %w", err)
		}
	}
	signals := catchSignals()
	defer signal.Stop(signals)
	if err := l.start(ctx); err != nil {
		return 0, err
	}
	status, err = l.child.attend(l.console, signals)
	if err != nil || opts.Keep {
		return status, err
	}
	l.undo.Forget()
	return status, l.remove(ctx)
}

// start brings the process to execve.
func (l *launch) start(ctx context.Context) error {
	if err := l.bring(ctx); err != nil {
		return startError(err)
	}
	return l.container.poststart(ctx, l.spec)
}

// catchSignals takes over those that would end us before the process is there;
// attend takes the others, which costs more (0.8 ms for all 65).
func catchSignals() chan os.Signal {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	return signals
}

// attend stays with an attached process to its end: passes signals on, keeps
// its terminal, reaps whatever it leaves to us.
func (s *stage) attend(console int, signals chan os.Signal) (status int, err error) {
	signal.Notify(signals)
	var terminal *relay
	if console >= 0 {
		master, err := receiveMaster(console)
		unix.Close(console)
		if err != nil {
			return 0, err
		}
		if terminal, err = newRelay(master); err != nil {
			return 0, err
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.reapAll() }()
	for {
		select {
		case err := <-ended:
			if terminal != nil {
				err = errors.Join(err, terminal.close())
			}
			return exitCode(s.status), err
		case received := <-signals:
			s.pass(received.(unix.Signal), terminal)
		}
	}
}

// pass hands a signal to the container's process, save those that are about
// ourselves.
func (s *stage) pass(received unix.Signal, terminal *relay) {
	switch received {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
	case unix.SIGWINCH:
		if terminal != nil {
			terminal.resize()
		}
	default:
		unix.Kill(s.pid, received) //nolint:errcheck // it may have just ended
	}
}

// reapAll waits until the process has ended. As a subreaper we are given its
// orphans, and reap them too.
func (s *stage) reapAll() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return errdefs.Internal.Errorf("waiting for process %d: %w", s.pid, err)
		case pid == s.pid:
			s.status, s.reaped = status, true
			return nil
		}
	}
}

// remove takes away what an attached run made, its process being gone. Without
// a pid namespace others may live on in the cgroup.
func (l *launch) remove(ctx context.Context) error {
	if !private(l.spec, specs.PIDNamespace) {
		if err := l.cgroup.Kill(ctx); err != nil {
			return err
		}
	}
	if err := l.cgroup.Remove(ctx); err != nil {
		return fmt.Errorf("unable to remove container's cgroup: %w", err)
	}
	if err := errors.Join(l.container.unmountRoot(), l.resctrl.Remove()); err != nil {
		return err
	}
	if l.spec.Hooks != nil {
		l.container.poststop(ctx)
	}
	return os.RemoveAll(l.container.Dir())
}
