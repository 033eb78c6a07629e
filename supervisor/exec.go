package supervisor

import (
	"context"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// AddProcess starts another process in a running container.
func (s *Supervisor) AddProcess(ctx context.Context, request *api.AddProcessRequest) (*api.AddProcessResponse, error) {
	asked, err := processRequestOf(request)
	if err != nil {
		return nil, err
	}
	return do(ctx, s, request.Id, shared, func(ctx context.Context) (*api.AddProcessResponse, error) {
		started, err := s.addProcess(ctx, request, asked)
		if err != nil {
			return nil, err
		}
		return &api.AddProcessResponse{SystemPid: uint32(started.Pid)}, nil
	})
}

func (s *Supervisor) addProcess(ctx context.Context, request *api.AddProcessRequest, asked runtime.Request) (_ runtime.Started, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	c, p, err := s.reserveProcess(request, asked)
	if err != nil {
		return runtime.Started{}, err
	}
	undo.Add("free the process's name", func(context.Context) error {
		return s.ask(func(*table) error { c.drop(p.name); return nil })
	})
	own, err := bundleProcess(c.handle.Record().Bundle)
	if err != nil {
		return runtime.Started{}, err
	}
	spec := processSpec(request, own)
	if err := s.ask(func(*table) error { p.message = describe(p.name, spec, asked); return nil }); err != nil {
		return runtime.Started{}, err
	}
	started, err := c.handle.Add(ctx, p.name, spec, asked)
	if err != nil {
		return runtime.Started{}, err
	}
	undo.Forget() // it runs: from here on only its exit ends it
	return started, s.recordProcess(c, p, started)
}

// reserveProcess takes the process's name in a container that runs.
func (s *Supervisor) reserveProcess(request *api.AddProcessRequest, asked runtime.Request) (c *container, p *process, err error) {
	err = s.ask(func(t *table) (err error) {
		if c, err = t.find(request.Id); err != nil {
			return err
		}
		if err := c.needRunning(request.Id); err != nil {
			return err
		}
		if c.process(request.Pid) != nil {
			return errdefs.AlreadyExists.Coded(errdefs.NameTaken, request.Pid, "container %s has a process %s already", request.Id, request.Pid)
		}
		p = newProcess(request.Pid, nil, asked)
		p.starting = true
		c.processes = append(c.processes, p)
		return nil
	})
	return c, p, err
}

// recordProcess records that p runs, then its exit if that came first.
func (s *Supervisor) recordProcess(c *container, p *process, started runtime.Started) error {
	exitSeen := false
	event := &api.Event{Type: eventStartProcess, Id: c.handle.ID(), Pid: p.name, SystemPid: uint32(started.Pid)}
	err := s.record(event, func(*table) {
		c.started(p, started)
		exitSeen = p.exitSeen
	})
	if err == nil && exitSeen {
		s.noteExit(c, p.name)
	}
	return err
}

func processRequestOf(request *api.AddProcessRequest) (asked runtime.Request, err error) {
	if err := checkProcessName(request.Pid); err != nil {
		return asked, err
	}
	if len(request.Args) == 0 || request.Args[0] == "" {
		return asked, errdefs.InvalidArgument.Errorf("args: empty, expected a command")
	}
	if request.Cwd != "" && !filepath.IsAbs(request.Cwd) {
		return asked, errdefs.InvalidArgument.Errorf("cwd: %q, expected an absolute path", request.Cwd)
	}
	if err := checkFifos(request.Stdin, request.Stdout, request.Stderr); err != nil {
		return asked, err
	}
	width, height, err := sizeOf(request.Width, request.Height)
	if err != nil {
		return asked, err
	}
	return runtime.Request{
		Terminal: request.Terminal, Width: width, Height: height,
		Stdin: request.Stdin, Stdout: request.Stdout, Stderr: request.Stderr,
		OpenStdin: request.OpenStdin, AwaitAttach: int(min(request.AwaitAttach, maxAttach)),
	}, nil
}

// processSpec is the OCI process of a request. What the request leaves empty,
// except terminal and arguments, is as the container's own process has it.
func processSpec(request *api.AddProcessRequest, own *specs.Process) *specs.Process {
	spec := *own
	spec.Terminal, spec.ConsoleSize = request.Terminal, nil
	if request.Terminal && request.Width != 0 && request.Height != 0 {
		spec.ConsoleSize = &specs.Box{Width: uint(request.Width), Height: uint(request.Height)}
	}
	spec.Args, spec.CommandLine = request.Args, ""
	if len(request.Env) > 0 {
		spec.Env = request.Env
	}
	spec.Cwd = "/"
	if request.Cwd != "" {
		spec.Cwd = request.Cwd
	}
	if request.User != nil {
		spec.User = specs.User{UID: request.User.Uid, GID: request.User.Gid, AdditionalGids: request.User.AdditionalGids, Umask: own.User.Umask}
	}
	if len(request.Capabilities) > 0 {
		spec.Capabilities = capabilitiesOf(request.Capabilities, spec.User.UID)
	}
	if request.ApparmorProfile != "" {
		spec.ApparmorProfile = request.ApparmorProfile
	}
	if request.SelinuxLabel != "" {
		spec.SelinuxLabel = request.SelinuxLabel
	}
	spec.NoNewPrivileges = own.NoNewPrivileges || request.NoNewPrivileges
	if len(request.Rlimits) > 0 {
		spec.Rlimits = nil
		for _, limit := range request.Rlimits {
			spec.Rlimits = append(spec.Rlimits, specs.POSIXRlimit{Type: limit.Type, Soft: limit.Soft, Hard: limit.Hard})
		}
	}
	return &spec
}

// capabilitiesOf gives a process the named capabilities: all sets for root,
// bounding and inheritable alone for others, who gain them by file capabilities.
// None is ambient, as dockerd has it.
func capabilitiesOf(names []string, uid uint32) *specs.LinuxCapabilities {
	capabilities := &specs.LinuxCapabilities{Bounding: names}
	if uid == 0 {
		capabilities.Effective, capabilities.Permitted = names, names
	}
	return capabilities
}
