package task

import (
	"context"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

// ExecRequest says what to run beside a container's first process.
type ExecRequest struct {
	ID          string // container
	Process     string // name for the process, unique in the container
	Spec        *specs.Process
	OpenStdin   bool
	AwaitAttach int
	Width       uint16
	Height      uint16
}

// Exec starts another process in a running container and returns its pid.
func (c *Client) Exec(ctx context.Context, req ExecRequest) (pid int, err error) {
	answer, err := c.rpc.AddProcess(ctx, toAddProcess(req), wait)
	if err != nil {
		return 0, err
	}
	return int(answer.GetSystemPid()), nil
}

func toAddProcess(req ExecRequest) *supervisor.AddProcessRequest {
	p := req.Spec
	add := &supervisor.AddProcessRequest{
		Id:       req.ID,
		Pid:      req.Process,
		Terminal: p.Terminal,
		User: &supervisor.User{
			Uid:            p.User.UID,
			Gid:            p.User.GID,
			AdditionalGids: p.User.AdditionalGids,
		},
		Args:            p.Args,
		Env:             p.Env,
		Cwd:             p.Cwd,
		ApparmorProfile: p.ApparmorProfile,
		SelinuxLabel:    p.SelinuxLabel,
		NoNewPrivileges: p.NoNewPrivileges,
		OpenStdin:       req.OpenStdin,
		AwaitAttach:     uint32(req.AwaitAttach),
		Width:           uint32(req.Width),
		Height:          uint32(req.Height),
	}
	if p.Capabilities != nil {
		add.Capabilities = p.Capabilities.Bounding
	}
	for _, limit := range p.Rlimits {
		add.Rlimits = append(add.Rlimits, &supervisor.Rlimit{Type: limit.Type, Soft: limit.Soft, Hard: limit.Hard})
	}
	return add
}

// Signal sends a signal to one process of a container.
func (c *Client) Signal(ctx context.Context, id, process string, signal syscall.Signal) error {
	_, err := c.rpc.Signal(ctx, &supervisor.SignalRequest{Id: id, Pid: process, Signal: uint32(signal)}, wait)
	return err
}

// Resize sets the size of a process's terminal.
func (c *Client) Resize(ctx context.Context, id, process string, width, height uint16) error {
	_, err := c.rpc.UpdateProcess(ctx, &supervisor.UpdateProcessRequest{
		Id: id, Pid: process, Width: uint32(width), Height: uint32(height),
	}, wait)
	return err
}

// CloseStdin closes a process's standard input.
func (c *Client) CloseStdin(ctx context.Context, id, process string) error {
	_, err := c.rpc.UpdateProcess(ctx, &supervisor.UpdateProcessRequest{Id: id, Pid: process, CloseStdin: true}, wait)
	return err
}

// Forget drops what is kept of an added process that has exited.
func (c *Client) Forget(ctx context.Context, id, process string) error {
	_, err := c.rpc.DeleteContainer(ctx, &supervisor.DeleteContainerRequest{Id: id, Pid: process}, wait)
	return err
}

// Pause freezes all processes of a container.
func (c *Client) Pause(ctx context.Context, id string) error { return c.setStatus(ctx, id, "paused") }

// Resume lets them go on.
func (c *Client) Resume(ctx context.Context, id string) error { return c.setStatus(ctx, id, "running") }

func (c *Client) setStatus(ctx context.Context, id, status string) error {
	_, err := c.rpc.UpdateContainer(ctx, &supervisor.UpdateContainerRequest{Id: id, Status: status}, wait)
	return err
}
