package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// writeRequest makes the directory of init with its request.json.
func (c *Container) writeRequest(request Request) error {
	if err := os.Mkdir(c.processDir(Init), 0o700); err != nil {
		return fmt.Errorf("making the directory of process %s: %w", Init, err)
	}
	if err := shim.WriteFile(c.processFile(Init, shim.RequestFile), request); err != nil {
		return fmt.Errorf("writing the request for process %s: %w", Init, err)
	}
	return nil
}

// layProcess makes the directory of an added process, which has its name only
// when all that the shim needs is in it.
func (c *Container) layProcess(process string, spec *specs.Process, request Request) (err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	aside, err := os.MkdirTemp(c.host.StateDir, trashPrefix+c.record.ID+"-*")
	if err != nil {
		return fmt.Errorf("making the directory of process %s: %w", process, err)
	}
	undo.Add("remove what was laid of process "+process, func(context.Context) error { return os.RemoveAll(aside) })
	if err := shim.WriteFile(filepath.Join(aside, shim.RequestFile), request); err != nil {
		return fmt.Errorf("writing the request for process %s: %w", process, err)
	}
	if err := shim.WriteFile(filepath.Join(aside, shim.ProcessFile), spec); err != nil {
		return fmt.Errorf("writing the specification of process %s: %w", process, err)
	}
	failpoint.At("runtime-process-laid")
	// rename(2) itself, which replaces an empty directory: an older supervisor leaves
	// one if it is killed.
	err = unix.Rename(aside, c.processDir(process))
	if errors.Is(err, fs.ErrExist) {
		return errdefs.AlreadyExists.Coded(errdefs.NameTaken, process, "container %s has a process %s already", c.record.ID, process)
	}
	if err != nil {
		return fmt.Errorf("naming the directory of process %s: %w", process, err)
	}
	return nil
}

// Add starts another process in the running container. On failure nothing is
// left of it.
func (c *Container) Add(ctx context.Context, process string, spec *specs.Process, request Request) (started Started, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	if err := c.layProcess(process, spec, request); err != nil {
		return Started{}, err
	}
	undo.Add("remove the directory of process "+process, func(context.Context) error { return c.Discard(process) })
	failpoint.At("runtime-process-written")
	started, err = c.Start(ctx, process)
	failpoint.At("runtime-process-started")
	return started, err
}

// Start has the shim start the process that PROCESS/request.json describes.
func (c *Container) Start(ctx context.Context, process string) (Started, error) {
	return c.startWithin(ctx, c.host.Limits.Start, process, func(ctx context.Context, client *shim.Client) (Started, error) {
		return client.Start(ctx, process)
	})
}

// await waits until init, which an opening has asked for, has started. One that
// goes on from a checkpoint takes longer, since criu reads all of its memory, and
// criu says in its log alone why it cannot.
func (c *Container) await(ctx context.Context, opening *shim.Opening, init Request) (Started, error) {
	limit := c.host.Limits.Start
	if init.Checkpoint != "" {
		limit = checkpointLimit
	}
	started, err := c.startWithin(ctx, limit, Init, func(ctx context.Context, _ *shim.Client) (Started, error) {
		return opening.Started(ctx)
	})
	if init.Checkpoint != "" {
		err = withReason(err, filepath.Join(c.processFile(Init, shim.CRIUDir), "restore.log"))
	}
	return started, err
}

func (c *Container) startWithin(ctx context.Context, limit time.Duration, process string,
	start func(context.Context, *shim.Client) (Started, error)) (started Started, err error) {
	err = c.ask(ctx, limit, "start", func(ctx context.Context, client *shim.Client) (err error) {
		started, err = start(ctx, client)
		return err
	})
	if errdefs.CodeOf(err) == errdefs.ShimStuck {
		err = c.blame(ctx, process, limit, err)
	}
	return started, err
}

// blame tells a shim that is stuck from one that waits for somebody to open a
// process's fifos.
func (c *Container) blame(ctx context.Context, process string, limit time.Duration, stuck error) error {
	if err := c.hello(ctx); err != nil {
		return stuck
	}
	return errdefs.DeadlineExceeded.Errorf("process %s of container %s has not started within %s: nobody opened its fifos, or the runtime hangs",
		process, c.record.ID, limit)
}

// Resumption is how the start of a created process has gone.
type Resumption struct {
	Started Started
	Err     error
}

// Resume starts the process that Start only created. The shim goes on when that takes
// longer than its limit: the error is then ShimStuck, and late is where the shim's
// answer comes, or at the latest the end of ctx or of the connection.
func (c *Container) Resume(ctx context.Context) (started Started, late <-chan Resumption, err error) {
	client, err := c.connected()
	if err != nil {
		return Started{}, nil, err
	}
	answers := make(chan Resumption, 1)
	go func() {
		started, err := client.Resume(ctx)
		if err != nil && gone(client) {
			err = c.lost(err)
		}
		answers <- Resumption{started, err}
	}()
	limit := c.host.Limits.Start
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case answer := <-answers:
		failpoint.At("runtime-init-resumed")
		return answer.Started, nil, answer.Err
	case <-timer.C:
		return Started{}, answers, errdefs.Unavailable.Coded(errdefs.ShimStuck, c.record.ID,
			"the shim of container %s has not answered the start of the created process within %s", c.record.ID, limit)
	}
}

// Busy returns a channel that closes when what the shim has called and waits for has
// ended, or nil if there is nothing: a shim tells only who asked how a start has gone,
// and that may have been a supervisor that is dead. It also closes when ctx ends.
func (c *Container) Busy(ctx context.Context) <-chan struct{} {
	leader := c.ShimPid()
	var calls []*shimProcess
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", leader))
	for _, list := range lists {
		children, _ := os.ReadFile(list) // a thread may have ended
		for field := range bytes.FieldsSeq(children) {
			pid, err := strconv.Atoi(string(field))
			if err != nil || !inGroup(pid, leader) { // the container's processes are in others
				continue
			}
			call, err := openProcess(pid, false)
			if err != nil || call == nil {
				continue
			}
			if call.dead() { // and not reaped yet: nobody has to wait for it
				<-call.exited()
				continue
			}
			calls = append(calls, call)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	ended := make(chan struct{})
	go func() { // its owner is ctx
		defer close(ended)
		for _, call := range calls {
			select {
			case <-call.exited():
			case <-ctx.Done():
			}
		}
	}()
	return ended
}

// Signal sends a signal to one process.
func (c *Container) Signal(ctx context.Context, process string, signal int) error {
	return c.ask(ctx, c.host.Limits.Shim, "signal", func(ctx context.Context, client *shim.Client) error {
		return client.Signal(ctx, process, signal)
	})
}

// Resize sets the size of a process's terminal.
func (c *Container) Resize(ctx context.Context, process string, width, height uint16) error {
	return c.ask(ctx, c.host.Limits.Shim, "resize", func(ctx context.Context, client *shim.Client) error {
		return client.Resize(ctx, process, width, height)
	})
}

// CloseStdin closes a process's standard input.
func (c *Container) CloseStdin(ctx context.Context, process string) error {
	return c.ask(ctx, c.host.Limits.Shim, "close of stdin", func(ctx context.Context, client *shim.Client) error {
		return client.CloseStdin(ctx, process)
	})
}

// Forget gives back what shim and directory hold of an exited process. It is
// no error that the shim is gone or never knew it.
func (c *Container) Forget(ctx context.Context, process string) error {
	err := c.ask(ctx, c.host.Limits.Shim, "forget", func(ctx context.Context, client *shim.Client) error {
		return client.Forget(ctx, process)
	})
	if err != nil && errdefs.CodeOf(err) != errdefs.ShimLost && errdefs.KindOf(err) != errdefs.NotFound {
		return err
	}
	failpoint.At("runtime-process-forgotten")
	return c.Discard(process)
}

// Runs reports whether a process that has started is still there.
func (c *Container) Runs(started Started) bool {
	p, err := findProcess(started.Pid, started.Start, false)
	if p != nil {
		p.pidfd.Close()
	}
	return p != nil || err != nil
}

// Known asks the shim for the processes that it has: those that it was asked to start
// and that have not failed to, nor been forgotten.
func (c *Container) Known(ctx context.Context) (names []string, err error) {
	err = c.ask(ctx, c.host.Limits.Shim, "list", func(ctx context.Context, client *shim.Client) (err error) {
		names, err = client.List(ctx)
		return err
	})
	return names, err
}

// Discard makes a process's directory disappear at once, then removes what was in
// it. It is no error that it is not there.
func (c *Container) Discard(process string) error {
	trash := filepath.Join(c.host.StateDir, fmt.Sprintf("%s%s-%d", trashPrefix, c.record.ID, time.Now().UnixNano()))
	err := os.Rename(c.processDir(process), trash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	failpoint.At("runtime-process-renamed")
	if err == nil {
		err = os.RemoveAll(trash)
	}
	if err != nil {
		return fmt.Errorf("removing the directory of process %s: %w", process, err)
	}
	return nil
}

// Holds reports whether the container's directory has anything of a process.
func (c *Container) Holds(process string) bool {
	_, err := os.Lstat(c.processDir(process))
	return !errors.Is(err, fs.ErrNotExist)
}
