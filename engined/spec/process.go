package spec

import (
	"cmp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is the PATH of processes whose image and client set none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func process(in Input) *specs.Process {
	score := in.HostConfig.OomScoreAdj
	p := &specs.Process{
		Terminal:    in.Config.Tty,
		Args:        in.Args,
		User:        in.User,
		Env:         Env(in.Config.Hostname, in.Config.Tty, in.Config.Env),
		Cwd:         cmp.Or(in.Config.WorkingDir, "/"),
		Rlimits:     rlimits(in),
		OOMScoreAdj: &score,
	}
	p.User.Umask = in.HostConfig.Umask
	if height, width := in.HostConfig.ConsoleSize[0], in.HostConfig.ConsoleSize[1]; p.Terminal && height > 0 && width > 0 {
		p.ConsoleSize = &specs.Box{Height: height, Width: width}
	}
	return p
}

// Env returns a process's environment: Docker's own variables, replaced and
// followed by those given. NAME without a value takes NAME away.
func Env(hostname string, tty bool, given []string) []string {
	env := []string{defaultPath, "HOSTNAME=" + hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return MergeEnv(env, given)
}

// MergeEnv returns env with the variables in over put over it.
func MergeEnv(env, over []string) []string {
	merged := slices.Clone(env)
	for _, variable := range over {
		name, _, assigns := strings.Cut(variable, "=")
		at := slices.IndexFunc(merged, func(have string) bool {
			known, _, _ := strings.Cut(have, "=")
			return known == name
		})
		switch {
		case assigns && at >= 0:
			merged[at] = variable
		case assigns:
			merged = append(merged, variable)
		case at >= 0:
			merged = slices.Delete(merged, at, at+1)
		}
	}
	return merged
}

func rlimits(in Input) (limits []specs.POSIXRlimit) {
	for _, limit := range in.HostConfig.Ulimits {
		limits = append(limits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(limit.Name),
			Soft: uint64(limit.Soft), // -1 is RLIM_INFINITY, all bits set
			Hard: uint64(limit.Hard),
		})
	}
	return limits
}
