package spec

import (
	"cmp"

	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec makes the process of a command that runs beside a container's first
// one: with its environment, capabilities and limits, unless told otherwise.
func Exec(config *apicontainer.Config, host *apicontainer.HostConfig, request apicontainer.ExecCreateRequest, user specs.User) (*specs.Process, error) {
	security, err := ParseSecurity(host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	powers := *host
	powers.Privileged = host.Privileged || request.Privileged
	caps, err := capabilities(&powers)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:        request.Tty,
		Args:            request.Cmd,
		User:            user,
		Env:             MergeEnv(Env(config.Hostname, request.Tty, config.Env), request.Env),
		Cwd:             cmp.Or(request.WorkingDir, config.WorkingDir, "/"),
		Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		NoNewPrivileges: security.NoNewPrivileges,
		Rlimits:         rlimits(Input{HostConfig: host}),
	}
	if security.AppArmor != unconfined && !request.Privileged {
		p.ApparmorProfile = security.AppArmor
	}
	return p, nil
}
