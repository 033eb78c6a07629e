package spec

import (
	"fmt"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

var defaultMaskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

var defaultReadonlyPaths = []string{
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
}

// secure adds what keeps the container's processes inside.
func secure(s *specs.Spec, in Input) error {
	options, err := ParseSecurity(in.HostConfig.SecurityOpt)
	if err != nil {
		return err
	}
	caps, err := capabilities(in.HostConfig)
	if err != nil {
		return err
	}
	// No inheritable ones: CVE-2022-24769.
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	s.Process.NoNewPrivileges = options.NoNewPrivileges
	if options.AppArmor != "" && options.AppArmor != unconfined {
		if !in.AppArmor {
			return errdefs.InvalidArgument.Errorf("HostConfig.SecurityOpt: apparmor=%s: AppArmor is not enabled on this machine", options.AppArmor)
		}
		s.Process.ApparmorProfile = options.AppArmor
	}
	mask(s, in)
	s.Linux.Seccomp, err = filter(s, in, options.Seccomp)
	return err
}

func mask(s *specs.Spec, in Input) {
	if in.HostConfig.Privileged {
		return
	}
	// nil is 'the default', an empty list is 'none'.
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = defaultMaskedPaths, defaultReadonlyPaths
	if in.HostConfig.MaskedPaths != nil {
		s.Linux.MaskedPaths = in.HostConfig.MaskedPaths
	}
	if in.HostConfig.ReadonlyPaths != nil {
		s.Linux.ReadonlyPaths = in.HostConfig.ReadonlyPaths
	}
}

// filter is the container's system call filter. A privileged one has none
// unless it names one.
func filter(s *specs.Spec, in Input, profile string) (*specs.LinuxSeccomp, error) {
	switch {
	case profile == unconfined, profile == "" && in.HostConfig.Privileged:
		return nil, nil //nolint:nilnil // no filter
	case profile == "", profile == "builtin":
		made, err := seccomp.GetDefaultProfile(s)
		if err != nil {
			return nil, fmt.Errorf("the default seccomp profile: %w", err)
		}
		return made, nil
	}
	made, err := seccomp.LoadProfile(profile, s)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("HostConfig.SecurityOpt: seccomp: %w", err)
	}
	return made, nil
}

const unconfined = "unconfined"

// Security is HostConfig.SecurityOpt, read.
type Security struct {
	NoNewPrivileges bool
	Seccomp         string // JSON, "unconfined", "builtin" or "": the default
	AppArmor        string // profile, "unconfined" or "": the default
}

// ParseSecurity reads KEY=VALUE (or, as Docker once had it, KEY:VALUE) options.
func ParseSecurity(options []string) (Security, error) {
	var parsed Security
	for _, option := range options {
		key, value, has := strings.Cut(option, "=")
		if !has {
			key, value, has = strings.Cut(option, ":")
		}
		if err := parsed.set(option, key, value, has); err != nil {
			return parsed, err
		}
	}
	return parsed, nil
}

func (p *Security) set(option, key, value string, has bool) error {
	switch {
	case key == "no-new-privileges" && (!has || value == "true"):
		p.NoNewPrivileges = true
	case key == "no-new-privileges" && value == "false":
		p.NoNewPrivileges = false
	case key == "seccomp" && has:
		p.Seccomp = value
	case key == "apparmor" && has:
		p.AppArmor = value
	case key == "label" && value == "disable": // no labels are ever set
	case key == "label" && has:
		return errdefs.NotImplemented.Errorf("HostConfig.SecurityOpt: %s: SELinux labels are not implemented", option)
	case key == "writable-cgroups" && has:
		return errdefs.NotImplemented.Errorf("HostConfig.SecurityOpt: %s is not implemented", option)
	case !has:
		return errdefs.InvalidArgument.Errorf("invalid --security-opt 1: %q", option)
	default:
		return errdefs.InvalidArgument.Errorf("invalid --security-opt 2: %q", option)
	}
	return nil
}
