package supervisor

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/opencontainers/runtime-spec/specs-go"

	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// describe is the message of a process that has not started. spec is nil if the
// bundle of a restored container is gone.
func describe(name string, spec *specs.Process, request runtime.Request) *api.Process {
	message := &api.Process{
		Pid: name, Terminal: request.Terminal,
		Stdin: request.Stdin, Stdout: request.Stdout, Stderr: request.Stderr,
	}
	if spec == nil {
		return message
	}
	message.Terminal = message.Terminal || spec.Terminal
	message.User = &api.User{Uid: spec.User.UID, Gid: spec.User.GID, AdditionalGids: spec.User.AdditionalGids}
	message.Args, message.Env, message.Cwd = spec.Args, spec.Env, spec.Cwd
	message.ApparmorProfile, message.SelinuxLabel = spec.ApparmorProfile, spec.SelinuxLabel
	message.NoNewPrivileges = spec.NoNewPrivileges
	if spec.Capabilities != nil {
		message.Capabilities = spec.Capabilities.Bounding
	}
	for _, limit := range spec.Rlimits {
		message.Rlimits = append(message.Rlimits, &api.Rlimit{Type: limit.Type, Soft: limit.Soft, Hard: limit.Hard})
	}
	return message
}

func exitMessage(exit runtime.Exit) *api.Exit {
	return &api.Exit{
		Status: uint32(exit.Status), Signal: uint32(exit.Signal), ExitedAt: timestamppb.New(exit.Time),
		OomKilled: exit.OOMKilled, Reason: exit.Reason, LogLost: exit.LogLost,
	}
}

func clone[Message proto.Message](message Message) Message { return proto.CloneOf(message) }
