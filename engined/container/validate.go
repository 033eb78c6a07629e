package container

import (
	"path"
	"runtime"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/spec"
	"github.com/engined/engined/proto/errdefs"
)

// minMemory is the least a container can be started with: its first process is
// the runtime.
const minMemory = 6 << 20

// check says whether a container could be run as asked for, with Docker's
// words where it has some.
func (s *Service) check(r *Record, _ image.Image) (warnings []string, err error) {
	invalid := func(format string, args ...any) error { return errdefs.InvalidArgument.Errorf(format, args...) }
	for _, check := range []func(*Record, func(string, ...any) error) error{
		checkConfig, checkModes, checkMemory, checkCPU, checkSecurity, checkLogs, checkMisc,
	} {
		if err := check(r, invalid); err != nil {
			return nil, err
		}
	}
	if err := unsupported(r); err != nil {
		return nil, err
	}
	// Whether the container of container:NAME is there is start's to say: docker
	// takes a 404 at create for a missing image.
	if err := s.Networks.Check(r.HostConfig.NetworkMode, r.Networks); err != nil {
		return nil, err
	}
	return warn(r), nil
}

func checkConfig(r *Record, invalid func(string, ...any) error) error {
	c := r.Config
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if c.StopTimeout != nil && *c.StopTimeout < -1 {
		return invalid("Config.StopTimeout: %d: expected seconds, or -1 for no limit", *c.StopTimeout)
	}
	for _, variable := range c.Env {
		if name, _, _ := strings.Cut(variable, "="); name == "" || strings.ContainsRune(variable, 0) {
			return invalid("invalid environment variable: %s", variable)
		}
	}
	if len(c.Hostname) > 64 {
		return invalid("invalid hostname %q: longer than 64 bytes", c.Hostname)
	}
	if strings.ContainsAny(c.Hostname+c.Domainname, "/\n \x00") {
		return invalid("invalid hostname or domainname: %q, %q", c.Hostname, c.Domainname)
	}
	for _, text := range append([]string{c.User, r.Path}, r.Args...) {
		if strings.ContainsRune(text, 0) {
			return invalid("NUL byte in %q", text)
		}
	}
	return nil
}

func checkModes(r *Record, invalid func(string, ...any) error) error {
	h := r.HostConfig
	switch {
	case !h.IpcMode.Valid():
		return invalid("invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return invalid("invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return invalid("invalid UTS mode: %v", h.UTSMode)
	case h.NetworkMode.IsContainer() && h.NetworkMode.ConnectedContainer() == "":
		return invalid("Invalid network mode: invalid container format container:<name|id>")
	case !h.UsernsMode.Valid():
		return invalid("invalid userns mode: %v", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case h.AutoRemove && !h.RestartPolicy.IsNone():
		return invalid("can't create 'AutoRemove' container with restart policy")
	case h.UTSMode.IsHost() && r.Config.Domainname != "":
		return invalid("conflicting options: domainname and the UTS mode")
	}
	if err := apicontainer.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return invalid("%w", err)
	}
	return nil
}

func checkMemory(r *Record, invalid func(string, ...any) error) error {
	h := r.HostConfig
	switch {
	case h.Memory < 0:
		return invalid("HostConfig.Memory: %d: expected bytes", h.Memory)
	case h.Memory > 0 && h.Memory < minMemory:
		return invalid("Minimum memory limit allowed is 6MB")
	case h.Memory == 0 && h.MemorySwap > 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case h.Memory > 0 && h.MemorySwap > 0 && h.MemorySwap < h.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case h.MemorySwappiness != nil && (*h.MemorySwappiness < -1 || *h.MemorySwappiness > 100):
		return invalid("Invalid value: %v, valid memory swappiness range is 0-100", *h.MemorySwappiness)
	case h.MemoryReservation > 0 && h.MemoryReservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case h.Memory > 0 && h.MemoryReservation > h.Memory:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.ShmSize < 0:
		return invalid("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

func checkCPU(r *Record, invalid func(string, ...any) error) error {
	h := r.HostConfig
	cpus := int64(runtime.NumCPU())
	switch {
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.NanoCPUs < 0 || h.NanoCPUs > cpus*int64(time.Second):
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case h.CPUShares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", h.CPUShares)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1000000):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case h.BlkioWeight > 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000):
		return invalid("Range of blkio weight is from 10 to 1000")
	}
	return checkCpuset(h, invalid)
}

func checkSecurity(r *Record, _ func(string, ...any) error) error {
	if _, err := spec.ParseSecurity(r.HostConfig.SecurityOpt); err != nil {
		return err
	}
	return spec.CheckCapabilities(r.HostConfig)
}

func checkLogs(r *Record, invalid func(string, ...any) error) error {
	_, err := logSpec(r, "/")
	if errdefs.KindOf(err) == errdefs.NotImplemented {
		return err
	}
	if err != nil {
		return invalid("HostConfig.LogConfig: %w", err)
	}
	return nil
}

func checkMisc(r *Record, invalid func(string, ...any) error) error {
	h := r.HostConfig
	for name := range h.Sysctls {
		if !namespaced(name, h) {
			return invalid("sysctl %q is not in a separate namespace of the container, or not known to be", name)
		}
	}
	for _, limit := range h.Ulimits {
		if limit == nil || limit.Hard < limit.Soft && limit.Hard != -1 || limit.Soft == -1 && limit.Hard != -1 {
			return invalid("ulimit soft limit must be less than or equal to hard limit: %v", limit)
		}
	}
	for at := range h.Tmpfs {
		if !path.IsAbs(at) || path.Clean(at) == "/" {
			return invalid("invalid mount path: '%s' mount path must be absolute and not '/'", at)
		}
	}
	if strings.Contains(h.CgroupParent, "..") || strings.HasSuffix(h.CgroupParent, ".slice") {
		return invalid("HostConfig.CgroupParent: %q: expected a path without .. for the cgroupfs driver", h.CgroupParent)
	}
	return nil
}

// namespaced says whether a sysctl is the container's own.
func namespaced(name string, h *apicontainer.HostConfig) bool {
	switch {
	case strings.HasPrefix(name, "net."):
		return !h.NetworkMode.IsHost()
	case strings.HasPrefix(name, "fs.mqueue."), strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), name == "kernel.sem":
		return !h.IpcMode.IsHost()
	case name == "kernel.hostname", name == "kernel.domainname":
		return !h.UTSMode.IsHost()
	}
	return false
}

// warn lists what is accepted and may surprise.
func warn(r *Record) []string {
	warnings := []string{}
	h := r.HostConfig
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return warnings
}

// defaultRuntime is the name of the engine's own.
const defaultRuntime = "ocirun"
