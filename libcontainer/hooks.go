package libcontainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// hasCreateHooks reports whether the child must pause before it switches roots.
func hasCreateHooks(spec *specs.Spec) bool {
	h := spec.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

// checkHooks: the spec wants absolute paths and positive timeouts.
func checkHooks(spec *specs.Spec) error {
	if spec.Hooks == nil {
		return nil
	}
	h := spec.Hooks
	for name, list := range map[string][]specs.Hook{
		"prestart": h.Prestart, "createRuntime": h.CreateRuntime, "createContainer": h.CreateContainer,
		"startContainer": h.StartContainer, "poststart": h.Poststart, "poststop": h.Poststop,
	} {
		for i, hook := range list {
			field := fmt.Sprintf("hooks.%s[%d]", name, i)
			if !filepath.IsAbs(hook.Path) {
				return invalid(field+".path", "expected an absolute path, got %q", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return invalid(field+".timeout", "expected more than 0 seconds, got %d", *hook.Timeout)
			}
		}
	}
	return nil
}

// hookState is what a hook reads on its standard input.
func (c *Container) hookState(status specs.ContainerState) *specs.State {
	return &specs.State{
		Version: c.State.OCIVersion, ID: c.ID, Status: status, Pid: c.State.Pid,
		Bundle: c.State.Bundle, Annotations: c.State.Annotations,
	}
}

// RunHooks runs the hooks of one kind in the runtime's namespaces, in order,
// and stops at the first that fails.
func RunHooks(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State) error {
	for i := range hooks {
		hook := &hooks[i]
		command := func(ctx context.Context) *exec.Cmd {
			cmd := exec.CommandContext(ctx, hook.Path)
			if cmd.Args = hook.Args; len(hook.Args) == 0 {
				cmd.Args = []string{hook.Path}
			}
			cmd.Env = hook.Env
			if cmd.Env == nil {
				cmd.Env = []string{}
			}
			return cmd
		}
		if err := runHook(ctx, hook, state, command); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

// runHook runs one: state on its input, its output kept for the error, killed
// at its timeout.
func runHook(ctx context.Context, hook *specs.Hook, state *specs.State, command func(context.Context) *exec.Cmd) error {
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if hook.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*hook.Timeout)*time.Second)
		defer cancel()
	}
	cmd := command(ctx)
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &output, &output
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	err = cmd.Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errdefs.DeadlineExceeded.Errorf("%s: timed out after %d s", hook.Path, *hook.Timeout)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w, output: %s", hook.Path, err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

// runInside runs hooks in the container's namespaces, of which the mount one
// gives the root: the runtime's before the switch of roots, the container's
// after it. The parent does it, by a short plan, since no Go runs in the child.
func (l *launch) runInside(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State, rootfs string) error {
	for i := range hooks {
		if err := runInside(ctx, &hooks[i], state, l.namespaces(), rootfs); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

func runInside(ctx context.Context, hook *specs.Hook, state *specs.State, namespaces uint64, rootfs string) error {
	init, err := openProcess(state.Pid)
	if err != nil {
		return fmt.Errorf("opening the container's process: %w", err)
	}
	defer unix.Close(init)
	input, err := json.Marshal(state)
	if err != nil {
		return err
	}
	stdin, err := stateInput(input)
	if err != nil {
		return err
	}
	defer unix.Close(stdin)
	pid := -1
	if namespaces&unix.CLONE_NEWPID != 0 {
		pid = init
	}
	child, err := spawn(birth{files: []int{stdin, 2, 2, init}, pidFD: pid})
	if err != nil {
		return err
	}
	defer child.close()
	defer child.kill() //nolint:errcheck // it is reaped already unless something failed
	if err := child.begin(hookPlan(hook, namespaces, rootfs)); err != nil {
		return err
	}
	return waitHook(ctx, child, hook)
}

// hookPlan joins the namespaces and executes the hook. pid is joined by the
// parent for its child.
func hookPlan(hook *specs.Hook, namespaces uint64, rootfs string) *nsenter.Plan {
	args := hook.Args
	if len(args) == 0 {
		args = []string{hook.Path}
	}
	plan := &nsenter.Plan{}
	plan.Add(nsenter.Op{Code: nsenter.Adopt, Num: num(nsenter.SlotContainer, 3)})
	plan.Add(nsenter.Op{Code: nsenter.Proc})
	enterContainer(plan, namespaces&^unix.CLONE_NEWPID, rootfs)
	plan.Add(nsenter.Op{Code: nsenter.Env, Strings: hook.Env})
	plan.Add(nsenter.Op{Code: nsenter.Args, Strings: args})
	plan.Add(nsenter.Op{Code: nsenter.Cloexec, Num: num(3)})
	plan.Add(nsenter.Op{Code: nsenter.Umask, Num: num(0o022)})
	plan.Add(nsenter.Op{Code: nsenter.Lookup, Text: text(hook.Path)})
	plan.Add(nsenter.Op{Code: nsenter.Exec, Text: text(hook.Path)})
	return plan
}

// waitHook waits for the hook's end within its timeout.
func waitHook(ctx context.Context, child *stage, hook *specs.Hook) error {
	if hook.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*hook.Timeout)*time.Second)
		defer cancel()
	}
	pid := child.pid
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it is not reaped yet, so the pid is its own
		close(done)
	})
	defer stop()
	if _, err := child.follow(duties{}); err != nil {
		return err
	}
	// Waited for without taking it, until the killer is out of the way.
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("waiting for a hook: %w", err)
	}
	if !stop() {
		<-done
	}
	if err := child.reap(); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return errdefs.DeadlineExceeded.Errorf("%s: timed out", hook.Path)
	case child.status.ExitStatus() != 0:
		return fmt.Errorf("%s: exit status %d", hook.Path, exitCode(child.status))
	}
	return nil
}

// stateInput returns the reading end of a pipe that holds data, which is smaller
// too long, as it could be for a pipe.
func stateInput(data []byte) (int, error) {
	fd, err := memoryFile("state")
	if err != nil {
		return -1, err
	}
	if _, err := unix.Pwrite(fd, data, 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
