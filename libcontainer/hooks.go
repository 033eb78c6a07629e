package libcontainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	if s := spec.Process.Scheduler; s != nil && s.Policy == specs.SchedDeadline && len(h.StartContainer) > 0 && !slices.Contains(s.Flags, specs.SchedFlagResetOnFork) {
		return errdefs.NotImplemented.Coded(errdefs.SpecInvalid, "hooks.startContainer", "hooks.startContainer: not implemented for a process with SCHED_DEADLINE, which may not fork, without SCHED_FLAG_RESET_ON_FORK")
	}
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
		Version: specs.Version, ID: c.ID, Status: status, Pid: c.State.Pid,
		Bundle: c.State.Bundle, Annotations: c.State.Annotations,
	}
}

// pidInside is the process's pid in its own pid namespace, by which hooks in the
// container know it (runtime.md, state). What /proc does not show has ours.
func pidInside(pid int) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return pid
	}
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok { // 4.1
			fields := strings.Fields(pids)
			if inner, err := strconv.Atoi(fields[len(fields)-1]); err == nil {
				return inner
			}
		}
	}
	return pid
}

// RunHooks runs the hooks of one kind in the runtime's namespaces, in order,
// and stops at the first that fails.
func RunHooks(ctx context.Context, kind string, hooks []specs.Hook, state *specs.State) error {
	if len(hooks) == 0 {
		return nil
	}
	nsenter.Unbind()
	for i := range hooks {
		hook := &hooks[i]
		command := func(ctx context.Context) *exec.Cmd {
			cmd := exec.CommandContext(ctx, hook.Path)
			if cmd.Args = hook.Args; len(hook.Args) == 0 {
				cmd.Args = []string{hook.Path}
			}
			// None: our own, as with runc and crun.
			cmd.Env = hook.Env
			if found, err := os.Stat(state.Bundle); err == nil && found.IsDir() { // it may be gone by poststop
				cmd.Dir = state.Bundle
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
	closeOthersAtExec()
	err = cmd.Run()
	if ctx.Err() != nil {
		return outOfTime(ctx, hook)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w, output: %s", hook.Path, err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

// runInside runs createContainer hooks in the container's namespaces: programs
// of the host, since the root is not switched yet.
func (l *launch) runInside(ctx context.Context, hooks []specs.Hook, state *specs.State) error {
	for i := range hooks {
		hook := &hooks[i]
		err := withHookFiles(state, func(files []int) error { return l.runCreateHook(ctx, hook, files) })
		if err != nil {
			return fmt.Errorf("error running createContainer hook #%d: %w", i, err)
		}
	}
	return nil
}

// runCreateHook starts it by a short plan, because no Go runs in the child.
func (l *launch) runCreateHook(ctx context.Context, hook *specs.Hook, files []int) error {
	b, namespaces := birth{files: files, pidFD: -1}, l.namespaces()
	if !l.user.unprivileged && namespaces&unix.CLONE_NEWPID != 0 {
		b.pidFD, namespaces = files[3], namespaces&^unix.CLONE_NEWPID
	}
	child, err := spawn(b)
	if err != nil {
		return err
	}
	defer child.close()
	defer child.kill() //nolint:errcheck // it is reaped already unless something failed
	if err := child.begin(hookPlan(hook, namespaces, l.rootfs, l.user)); err != nil {
		return err
	}
	if _, err := child.follow(duties{moved: func() error { return nil }}); err != nil {
		return err
	}
	return waitHook(ctx, child, hook, files[1])
}

// hookPlan joins the namespaces and executes the hook, in the container's root
// as runc does.
func hookPlan(hook *specs.Hook, namespaces uint64, rootfs string, by caller) *nsenter.Plan {
	plan := &nsenter.Plan{}
	plan.Add(nsenter.Op{Code: nsenter.Adopt, Num: num(nsenter.SlotContainer, 3)})
	plan.Add(nsenter.Op{Code: nsenter.Proc})
	enterContainer(plan, namespaces, "")
	// There is no second try: who is root of the user namespace may have no right to go
	// there.
	plan.Add(nsenter.Op{Code: nsenter.Chdir, Text: text(rootfs), Flags: nsenter.AfterUser, Why: "going to the container's root"})
	if namespaces&unix.CLONE_NEWUSER != 0 {
		var flags nsenter.Flag
		if !by.noGroups {
			flags = nsenter.SetGroups
		}
		becomeRoot(plan, flags)
	}
	if by.unprivileged { // the pid namespace takes in only children
		plan.Add(nsenter.Op{Code: nsenter.Clone})
	}
	env := hook.Env
	if env == nil {
		env = os.Environ()
	}
	plan.Add(nsenter.Op{Code: nsenter.Env, Strings: env})
	plan.Add(nsenter.Op{Code: nsenter.Args, Strings: hookArgs(hook)})
	plan.Add(nsenter.Op{Code: nsenter.Cloexec, Num: num(3)})
	plan.Add(nsenter.Op{Code: nsenter.Umask, Num: num(0o022)})
	plan.Add(nsenter.Op{Code: nsenter.Lookup, Text: text(hook.Path)})
	plan.Add(nsenter.Op{Code: nsenter.Exec, Text: text(hook.Path)})
	return plan
}

// startHooks are programs of the image, which the process runs itself before its
// command (nsenter/hook.c).
func startHooks(spec *specs.Spec) []specs.Hook {
	if spec.Hooks == nil {
		return nil
	}
	return spec.Hooks.StartContainer
}

// makeHookFiles makes what startContainer hooks read and write, and the fifo at which
// start hears of them.
func (l *launch) makeHookFiles() (err error) {
	if l.state, err = memoryFile("state"); err != nil {
		return err
	}
	// Not to be sealed: by one hook against the next.
	output, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	l.files = append(l.files, l.state)
	l.inherit(output)
	if l.fd.report > 0 {
		return l.inheritFifo(HooksFile)
	}
	return nil
}

// tellHooks writes what startContainer hooks read, which cannot change it.
func (l *launch) tellHooks() error {
	if err := writeState(l.state, l.container.hookState(specs.StateCreated)); err != nil {
		return err
	}
	return seal(l.state)
}

// writeState writes what a hook in the container reads to a file, for a state may be
// too long for a pipe.
func writeState(fd int, state *specs.State) error {
	inside := *state
	inside.Pid = pidInside(state.Pid)
	input, err := json.Marshal(&inside)
	if err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, input, 0); err != nil {
		return fmt.Errorf("writing the state for hooks: %w", err)
	}
	return nil
}

// hookTimeout in ms, 0 if there is none.
func hookTimeout(hook *specs.Hook) uint64 {
	if hook.Timeout == nil {
		return 0
	}
	return min(uint64(*hook.Timeout)*1000, math.MaxInt32)
}

// startHookError words what the process says of a startContainer hook.
func startHookError(path string, timeout uint64, m nsenter.Message, output []byte) error {
	var err error
	if m.Where == nsenter.WhereTimeout {
		err = timedOut(path, int(timeout/1000))
	} else {
		err = hookFailed(path, m.Errno, output)
	}
	return fmt.Errorf("error running startContainer hook #%d: %w", m.Value, err)
}

// outOfTime words the end of ctx, which may have a deadline of the caller's.
func outOfTime(ctx context.Context, hook *specs.Hook) error {
	if hook.Timeout != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return timedOut(hook.Path, *hook.Timeout)
	}
	return fmt.Errorf("%s: %w", hook.Path, ctx.Err())
}

func timedOut(path string, seconds int) error {
	return errdefs.DeadlineExceeded.Errorf("%s: timed out after %d s", path, seconds)
}

func hookFailed(path string, status int, output []byte) error {
	return fmt.Errorf("%s: exit status %d, output: %s", path, status, bytes.TrimSpace(output))
}

func hookArgs(hook *specs.Hook) []string {
	if len(hook.Args) == 0 {
		return []string{hook.Path}
	}
	return hook.Args
}

// withHookFiles opens what a hook in the container gets: the state to read, a
// file for its output, twice, and the container's process.
func withHookFiles(state *specs.State, do func(files []int) error) error {
	init, err := openProcess(state.Pid)
	if err != nil {
		return fmt.Errorf("opening the container's process: %w", err)
	}
	defer unix.Close(init)
	stdin, err := memoryFile("state")
	if err != nil {
		return err
	}
	defer unix.Close(stdin)
	if err := writeState(stdin, state); err != nil {
		return err
	}
	output, err := memoryFile("output")
	if err != nil {
		return err
	}
	defer unix.Close(output)
	return do([]int{stdin, output, output, init})
}

// waitHook waits for the hook's end within its timeout.
func waitHook(ctx context.Context, child *stage, hook *specs.Hook, output int) error {
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
	// Waited for without taking it, until the killer is out of the way.
	if err := awaitEnd(pid); err != nil {
		return err
	}
	if !stop() {
		<-done
	}
	if err := child.reap(); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return outOfTime(ctx, hook)
	case exitCode(child.status) != 0:
		said := make([]byte, nsenter.MaxOutput)
		n, _ := unix.Pread(output, said, 0) // else there is none to show
		return hookFailed(hook.Path, exitCode(child.status), said[:max(n, 0)])
	}
	return nil
}

func awaitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for a hook: %w", err)
		}
	}
}
