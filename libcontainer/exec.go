package libcontainer

import (
	"cmp"
	"context"
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

// ExecOptions say how a further process is started in a container.
type ExecOptions struct {
	// Process makes the process out of the container's spec, which is read
	// while the stage begins.
	Process       func(*specs.Spec) (*specs.Process, error)
	Terminal      bool // what the process will say of its terminal
	ConsoleSocket string
	PidfdSocket   string            // takes a pidfd of the process
	Cgroups       map[string]string // v1 controller, or "" for all, to a path below the container's cgroup
	PidFile       string
	PreserveFDs   int
	Detach        bool
	IgnorePaused  bool
}

// Exec starts a process in a running container. Attached, it waits for it and
// returns its status.
func Exec(ctx context.Context, c *Container, opts ExecOptions) (status int, err error) {
	if err := c.checkExec(opts.IgnorePaused); err != nil {
		return 0, err
	}
	init, err := c.pidfd()
	if err != nil {
		return 0, err
	}
	defer unix.Close(init)
	l := &launch{
		mode: attached, container: c, console: -1, user: theCaller(),
		opts: CreateOptions{ConsoleSocket: opts.ConsoleSocket, PidfdSocket: opts.PidfdSocket, PidFile: opts.PidFile, PreserveFDs: opts.PreserveFDs, NoNewKeyring: c.State.NoNewKeyring},
	}
	if opts.Detach {
		l.mode = detached
	}
	defer l.undo.OnError(&err)
	defer l.close()
	if err := l.checkTerminal(opts.Terminal); err != nil {
		return 0, err
	}
	if l.cgroup, err = c.cgroup().Below(opts.Cgroups); err != nil {
		return 0, err
	}
	l.below = len(opts.Cgroups) > 0
	l.resctrl = c.State.Resctrl
	failpoint.At("exec-checked")
	if l.mode == detached {
		return 0, l.join(init, &opts)
	}
	return l.stay(ctx, func() error { return l.join(init, &opts) }, func() error { return nil })
}

// checkExec: a paused container would swallow the process.
func (c *Container) checkExec(ignorePaused bool) error {
	status, err := c.Status()
	switch {
	case err != nil:
		return err
	case status == Stopped:
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, c.ID, "cannot exec in a stopped container")
	case status == Paused && !ignorePaused:
		return errdefs.FailedPrecondition.Coded(errdefs.Paused, c.ID, "cannot exec in a paused container (use --ignore-paused to override)")
	}
	return nil
}

// join is start's counterpart for exec.
func (l *launch) join(init int, opts *ExecOptions) error {
	if err := l.spawnInside(init, opts.Terminal); err != nil {
		return startError(err)
	}
	if err := l.readProcess(opts); err != nil {
		return err
	}
	failpoint.At("exec-process-read")
	if err := l.followInside(); err != nil {
		return startError(err)
	}
	failpoint.At("exec-followed")
	if l.opts.PidFile == "" {
		return nil
	}
	return writePidFile(l.opts.PidFile, l.child.pid)
}

// spawnInside starts the clone, in the container's cgroup. It is not born in the pid
// namespace, where who may trace others would have the host's root by it.
func (l *launch) spawnInside(init int, terminal bool) error {
	if err := l.prepareFiles(terminal); err != nil {
		return err
	}
	l.fd.container = len(l.files)
	l.files = append(l.files, init)
	return l.clone(birth{files: l.files, pidFD: -1, cgroup: l.cgroup, elsewhere: l.elsewhere})
}

// elsewhere says where a process goes that the container's v2 cgroup refuses.
// One that has handed controllers down takes in no processes (EBUSY), as where
// systemd or another engine runs inside: the first process has gone below. Of
// cgroups that are not beside his own a rootless caller may not use all
// (cgroups(7), delegation), and the process stays in his.
func (l *launch) elsewhere(refusal error) (*cgroup.Cgroup, bool) {
	switch {
	case l.below:
		return nil, false
	case errors.Is(refusal, unix.EBUSY), errors.Is(refusal, unix.EOPNOTSUPP):
		beside, err := cgroup.Of(l.container.State.Pid)
		return beside, err == nil
	case errors.Is(refusal, unix.EACCES):
		return nil, l.user.unprivileged || cgroup.InUserNamespace()
	}
	return nil, false
}

// readProcess reads the container's spec and makes the process out of it.
func (l *launch) readProcess(opts *ExecOptions) error {
	spec, err := l.container.Spec()
	if err != nil {
		return err
	}
	process, err := opts.Process(spec)
	if err != nil {
		return err
	}
	if err := validateProcess(process, "process"); err != nil {
		return err
	}
	l.spec = &specs.Spec{Process: process, Linux: spec.Linux}
	if err := cmp.Or(l.user.check(l.spec), checkMapped(l.spec, process)); err != nil {
		return err
	}
	return l.compileFilter()
}

// followInside gives the child its plan and follows it to execve.
func (l *launch) followInside() error {
	f := facts{
		id: l.container.ID, fd: l.fd, filter: l.filter, keyring: !l.opts.NoNewKeyring, plain: l.plainLines(), user: l.user,
		joinFiles: append(l.cgroup.JoinFiles(), l.resctrl.TaskFiles()...), rootfs: l.container.ownRoot(),
	}
	err := f.ofProcess(l.spec)
	if err != nil {
		return err
	}
	if l.plan, err = compileExec(l.spec.Process, l.spec.Linux, l.namespaces(), &f); err != nil {
		return err
	}
	if err := l.raiseLimits(); err != nil {
		return err
	}
	if err := l.child.begin(l.plan); err != nil {
		return err
	}
	moved := l.sendPidfd
	if l.namespaces()&unix.CLONE_NEWPID == 0 { // else the process is yet to be born
		if err := l.sendPidfd(); err != nil {
			return err
		}
		moved = nil
	}
	end, err := l.child.follow(duties{moved: moved, listener: l.listener(specs.StateRunning)})
	if err == nil && end == lost {
		return l.died()
	}
	return err
}
