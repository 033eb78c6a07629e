package container

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/engined/logs"
	"github.com/engined/engined/engined/spec"
	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// command is a command to run beside a container's first process. It lives in
// memory: it cannot outlive a restart of engined as anything one could use.
type command struct {
	id        string
	container *container
	request   apicontainer.ExecCreateRequest
	keys      []byte
	done      chan struct{} // closed when ended is set

	mu      sync.Mutex // guards what follows
	started bool
	pid     int
	ended   time.Time // zero: has not
	code    int
}

// ExecCreate prepares a command.
func (s *Service) ExecCreate(ctx context.Context, ref string, request apicontainer.ExecCreateRequest) (string, error) {
	c, err := s.index.find(ref)
	if err != nil {
		return "", err
	}
	r := c.record.Load()
	if err := allow(executing, r); err != nil {
		return "", err
	}
	if len(request.Cmd) == 0 {
		return "", errdefs.InvalidArgument.Errorf("No exec command specified")
	}
	keys, err := parseKeys(request.DetachKeys)
	if err != nil {
		return "", err
	}
	if dir := request.WorkingDir; dir != "" && dir[0] != '/' {
		return "", errdefs.InvalidArgument.Errorf("WorkingDir: %q: expected an absolute path", dir)
	}
	e := &command{id: newID(), container: c, request: request, keys: keys, done: make(chan struct{})}
	s.execs.add(e)
	s.tellExec(e, apievents.ActionExecCreate, nil)
	return e.id, nil
}

// tellExec publishes an event about a command. Docker puts the command line
// into the action of the first two.
func (s *Service) tellExec(e *command, action apievents.Action, more map[string]string) {
	if action == apievents.ActionExecCreate || action == apievents.ActionExecStart {
		action += apievents.Action(": " + strings.Join(e.request.Cmd, " "))
	}
	attributes := map[string]string{"execID": e.id}
	for name, value := range more {
		attributes[name] = value
	}
	s.tell(e.container.record.Load(), action, attributes)
}

// ExecStart runs a prepared command, on the client's connection unless it is
// detached. What fails after the connection is taken over is told on it.
func (s *Service) ExecStart(ctx context.Context, id string, options ExecStartOptions, upgrade Upgrade) error {
	e, err := s.execs.find(id)
	if err != nil {
		return err
	}
	r := e.container.record.Load()
	if err := allow(executing, r); err != nil {
		return err
	}
	if err := e.begin(); err != nil {
		return err
	}
	process, invalid := execProcess(r, e)
	if invalid != nil {
		e.end(exitNotStarted)
	}
	if options.Detach {
		if invalid != nil {
			return invalid
		}
		_, err := s.run(ctx, e, process, options, false)
		return err
	}
	conn, ahead, err := upgrade(e.request.Tty)
	switch {
	case err != nil:
		e.end(exitNotStarted)
		return err
	case invalid != nil: // docker shows what is on the stream, of an answer only the status
		return report(conn, e.request.Tty, invalid.Error())
	}
	socket, err := s.run(ctx, e, process, options, true)
	if err != nil {
		return report(conn, e.request.Tty, fmt.Sprintf("OCI runtime exec failed: %v: unknown", err))
	}
	return s.Tasks.Attach(context.WithoutCancel(ctx), socket, shim.AttachRequest{
		Process: e.id,
		Stdin:   e.request.AttachStdin, Stdout: e.request.AttachStdout, Stderr: e.request.AttachStderr,
		DetachKeys: e.keys, Read: ahead,
	}, conn)
}

// exitNotStarted is the status of a command that the engine itself could not
// start.
const exitNotStarted = 126

// run has the supervisor start the command.
func (s *Service) run(ctx context.Context, e *command, process *specs.Process, options ExecStartOptions, attached bool) (socket string, err error) {
	ctx, cancel := begun(ctx)
	defer cancel()
	request := task.ExecRequest{ID: e.container.id, Process: e.id, Spec: process}
	if attached {
		request.OpenStdin, request.AwaitAttach = e.request.AttachStdin, 1
	}
	size := options.ConsoleSize
	if size == nil {
		size = e.request.ConsoleSize
	}
	if size != nil && process.Terminal {
		request.Height, request.Width = uint16(size[0]), uint16(size[1])
	}
	s.tellExec(e, apievents.ActionExecStart, nil)
	pid, err := s.Tasks.Exec(ctx, request)
	if err != nil {
		code := failureCode(err)
		if code == 128 {
			code = exitNotStarted
		}
		e.end(code)
		return "", err
	}
	e.runs(pid)
	run := e.container.record.Load().Run
	return run.Socket, nil
}

// report tells a client on its stream, as dockerd does, why there is none.
func report(conn net.Conn, terminal bool, cause string) error {
	text := []byte(cause + "\r\n")
	if !terminal {
		text = logs.AppendFrame(nil, 1, text)
	}
	_, _ = conn.Write(text) // the client may have left
	conn.Close()
	return nil
}

// execProcess is the command as the runtime takes it.
func execProcess(r *Record, e *command) (*specs.Process, error) {
	name, groups := e.request.User, []string(nil)
	if name == "" {
		name, groups = r.Config.User, r.HostConfig.GroupAdd
	}
	user, err := spec.ResolveUser(r.Run.Rootfs, name, groups)
	if err != nil {
		return nil, err
	}
	return spec.Exec(r.Config, r.HostConfig, e.request, user)
}

// ExecInspect tells how a command is doing.
func (s *Service) ExecInspect(ctx context.Context, id string) (apicontainer.ExecInspectResponse, error) {
	e, err := s.execs.find(id)
	if err != nil {
		return apicontainer.ExecInspectResponse{}, err
	}
	e.settle(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	found := apicontainer.ExecInspectResponse{
		ID:      e.id,
		Running: e.started && e.ended.IsZero(),
		ProcessConfig: &apicontainer.ExecProcessConfig{
			Tty: e.request.Tty, Entrypoint: e.request.Cmd[0], Arguments: e.request.Cmd[1:],
			Privileged: &e.request.Privileged, User: e.request.User,
		},
		OpenStdin: e.request.AttachStdin, OpenStdout: e.request.AttachStdout, OpenStderr: e.request.AttachStderr,
		ContainerID: e.container.id,
		DetachKeys:  e.keys,
		Pid:         e.pid,
	}
	if !e.ended.IsZero() {
		code := e.code
		found.ExitCode = &code
	}
	return found, nil
}

// ExecResize sets the size of a command's terminal.
func (s *Service) ExecResize(ctx context.Context, id string, height, width uint16) error {
	e, err := s.execs.find(id)
	if err != nil {
		return err
	}
	e.mu.Lock()
	runs := e.pid != 0 && e.ended.IsZero()
	e.mu.Unlock()
	if !runs {
		return errdefs.Conflict.Coded(errdefs.NotRunning, id, "exec process %s is not running", id)
	}
	return s.Tasks.Resize(ctx, e.container.id, e.id, width, height)
}

// begin takes the one start that a command has.
func (e *command) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.started && e.ended.IsZero() {
		return errdefs.Conflict.Errorf("exec command %s is already running", e.id)
	}
	if e.started {
		return errdefs.Conflict.Errorf("exec command %s has already run", e.id)
	}
	e.started = true
	return nil
}

// runs notes the pid, unless the end was quicker.
func (e *command) runs(pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended.IsZero() {
		e.pid = pid
	}
}

// end notes how it ended, once.
func (e *command) end(code int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started || !e.ended.IsZero() {
		return false
	}
	e.ended, e.code, e.pid = time.Now(), code, 0
	close(e.done)
	return true
}
