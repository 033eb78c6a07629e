package libcontainer

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/seccomp"
	"github.com/engined/engined/proto/errdefs"
)

// ExecOptions say how a further process is started in a container.
type ExecOptions struct {
	Process       *specs.Process
	ConsoleSocket string
	PidFile       string
	PreserveFDs   int
	Detach        bool
	IgnorePaused  bool
}

// Exec starts a process in a running container. Attached, it waits for it and
// returns its status.
func Exec(ctx context.Context, c *Container, opts ExecOptions) (status int, err error) {
	if err := validateProcess(opts.Process, "process"); err != nil {
		return 0, err
	}
	if err := c.checkExec(opts.IgnorePaused); err != nil {
		return 0, err
	}
	spec, err := c.Spec()
	if err != nil {
		return 0, err
	}
	init, err := c.pidfd()
	if err != nil {
		return 0, err
	}
	defer unix.Close(init)
	mode := attached
	if opts.Detach {
		mode = detached
	}
	l := &launch{
		mode: mode,
		opts: CreateOptions{ConsoleSocket: opts.ConsoleSocket, PidFile: opts.PidFile, PreserveFDs: opts.PreserveFDs},
		spec: &specs.Spec{Process: opts.Process, Linux: spec.Linux}, container: c, console: -1,
	}
	if err := l.checkTerminal(); err != nil {
		return 0, err
	}
	defer l.undo.OnError(&err)
	defer l.close()
	if mode == detached {
		return 0, l.join(init)
	}
	signals := catchSignals()
	defer signal.Stop(signals)
	if err := l.join(init); err != nil {
		return 0, err
	}
	return l.child.attend(l.console, signals)
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
func (l *launch) join(init int) error {
	if err := l.spawnInside(init); err != nil {
		return startError(err)
	}
	if l.opts.PidFile == "" {
		return nil
	}
	return writePidFile(l.opts.PidFile, l.child.pid)
}

// spawnInside has the process born in the container's pid namespace and
// cgroup, and follows it to execve.
func (l *launch) spawnInside(init int) error {
	if err := l.prepareFiles(l.spec.Process.Terminal); err != nil {
		return err
	}
	l.fd.container = len(l.files)
	l.files = append(l.files, init)
	if err := l.compileJoin(); err != nil {
		return err
	}
	b := birth{files: l.files, pidFD: -1, cgroupFD: -1}
	if namespacesOf(l.spec)&unix.CLONE_NEWPID != 0 {
		b.pidFD = init
	}
	cg := l.container.cgroup()
	if dir := cg.Dir(); dir != "" {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the cgroup: %w", err)
		}
		defer unix.Close(fd)
		b.cgroupFD = fd
	}
	var err error
	if l.child, err = spawn(b); err != nil {
		return err
	}
	l.undo.Add("kill the new process", func(context.Context) error { return l.child.kill() })
	if err := l.child.begin(l.plan); err != nil {
		return err
	}
	_, err = l.child.follow(func(uint64) error { return nil })
	return err
}

// compileJoin makes exec's plan. The filter is the one that create compiled.
func (l *launch) compileJoin() error {
	f := facts{id: l.container.ID, fd: l.fd, keyring: true, joinFiles: l.container.cgroup().JoinFiles()}
	if l.spec.Linux.Seccomp != nil {
		program, err := os.ReadFile(filepath.Join(l.container.Dir(), SeccompFile))
		if err != nil {
			return fmt.Errorf("reading the container's seccomp filter: %w", err)
		}
		f.filter = &seccomp.Filter{Program: program}
	}
	var err error
	if f.available, err = ownCapabilities(); err != nil {
		return err
	}
	if f.apparmor, err = apparmorFor(l.spec.Process); err != nil {
		return err
	}
	l.plan, err = compileExec(l.spec.Process, namespacesOf(l.spec)&^unix.CLONE_NEWPID, &f)
	return err
}
