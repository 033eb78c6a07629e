package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/nsenter"
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
// it waits for the process, deletes the container and returns the status. Detached,
// with a NotifySocket, it waits until the container is ready or has ended.
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
		if err := l.start(ctx); err != nil {
			return 0, err
		}
		l.undo.Forget() // it runs, whoever hears of it
		return 0, l.notify.relay(ctx, l.child.pid)
	}
	if !opts.NoSubreaper {
		if err := becomeSubreaper(); err != nil {
			return 0, err
		}
	}
	return l.stay(ctx, func() error { return l.start(ctx) }, func() error {
		failpoint.At("run-attended")
		if opts.Keep {
			return nil
		}
		l.undo.Forget()
		return l.remove(ctx)
	})
}

// becomeSubreaper makes the container's orphans ours.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the subreaper: %w", err)
	}
	return nil
}

// stay attends the process that begin brings up, then does what is left to do.
// Signals are caught from before the process is there until all is done: one
// that came in between would leave half of it.
func (l *launch) stay(ctx context.Context, begin, finish func() error) (status int, err error) {
	signals, err := nsenter.CatchSignals()
	if err != nil {
		return 0, err
	}
	defer signals.Release()
	if err := begin(); err != nil {
		return 0, err
	}
	endRelay := l.notify.accompany(ctx)
	status, err = l.child.attend(l.console, signals)
	endRelay()
	if err != nil {
		return status, err
	}
	return status, finish()
}

// start brings the process to execve.
func (l *launch) start(ctx context.Context) error {
	if err := l.bring(ctx); err != nil {
		return startError(l.starved(err))
	}
	l.hooked = true
	return l.container.poststart(ctx, l.spec)
}

// attend stays with an attached process to its end: passes signals on, keeps
// its terminal, reaps whatever it leaves to us. Of what ends without a word on
// the way here, SIGCHLD waits in signals.
func (s *stage) attend(console int, signals *nsenter.Signals) (status int, err error) {
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
		defer func() { err = errors.Join(err, terminal.close()) }()
	}
	nsenter.Unbind()
	for {
		if ended, err := s.reapAll(); ended || err != nil {
			return exitCode(s.status), err
		}
		received, err := signals.Wait()
		if err != nil {
			return 0, err
		}
		for _, number := range received {
			s.pass(unix.Signal(number), terminal)
		}
	}
}

// pass hands a signal to the container's process, save those that are about
// ourselves.
func (s *stage) pass(received unix.Signal, terminal *relay) {
	switch received {
	case unix.SIGCHLD, unix.SIGPIPE:
	case unix.SIGWINCH:
		if terminal != nil {
			terminal.resize()
		}
	default:
		unix.Kill(s.pid, received) //nolint:errcheck // it may have just ended
	}
}

// reapAll reaps what has ended and reports whether the process is among it. As
// a subreaper we are given its orphans, and reap them too.
func (s *stage) reapAll() (ended bool, err error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, errdefs.Internal.Errorf("waiting for process %d: %w", s.pid, err)
		case pid == 0:
			return false, nil
		case pid == s.pid:
			s.status, s.reaped = status, true
			return true, nil
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
	failpoint.At("run-cgroup-removed")
	if l.spec.Hooks != nil {
		l.container.poststop(ctx)
	}
	return os.RemoveAll(l.container.Dir())
}
