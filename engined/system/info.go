package system

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	apiswarm "github.com/moby/moby/api/types/swarm"
	apisystem "github.com/moby/moby/api/types/system"
)

// DefaultRegistry is the address under which clients log in unless told another.
const DefaultRegistry = "https://index.docker.io/v1/"

// Info answers GET /info.
func (s *Service) Info(ctx context.Context) (apisystem.Info, error) {
	settings := s.current()
	images, err := s.sources.Images(ctx)
	if err != nil {
		return apisystem.Info{}, fmt.Errorf("counting images: %w", err)
	}
	supervisor, ocirun := s.supervisorVersion(ctx), s.runtimeVersion(ctx)
	info := apisystem.Info{
		ID:                 s.id,
		Images:             images,
		Driver:             s.sources.Storage.Name(),
		DriverStatus:       s.sources.Storage.Status(),
		Plugins:            apisystem.PluginsInfo{Network: settings.NetworkDrivers, Log: settings.LogDrivers},
		Debug:              settings.Debug,
		NFd:                openDescriptors(),
		NGoroutines:        runtime.NumGoroutine(),
		SystemTime:         time.Now().UTC().Format(time.RFC3339Nano),
		LoggingDriver:      settings.LogDriver,
		IndexServerAddress: DefaultRegistry,
		DockerRootDir:      settings.DataRoot,
		Labels:             append([]string{}, settings.Labels...), // [] and not null
		ServerVersion:      settings.Version,
		Runtimes:           map[string]apisystem.RuntimeWithStatus{"ocirun": {Runtime: apisystem.Runtime{Path: settings.Runtime}}},
		DefaultRuntime:     "ocirun",
		Swarm:              apiswarm.Info{LocalNodeState: apiswarm.LocalNodeStateInactive},
		LiveRestoreEnabled: true, // containers do not notice that the daemon is away
		ContainerdCommit:   apisystem.Commit{ID: supervisor.version},
		RuncCommit:         apisystem.Commit{ID: ocirun.version},
		InitCommit:         apisystem.Commit{ID: "N/A"},
	}
	info.ContainersRunning, info.ContainersPaused, info.ContainersStopped = s.sources.Containers.Counts()
	info.Containers = info.ContainersRunning + info.ContainersPaused + info.ContainersStopped
	host().fill(&info)
	info.Warnings = append(warnings(info), troubles(supervisor, ocirun)...)
	return info, nil
}

// fill adds the host's facts.
func (f facts) fill(info *apisystem.Info) {
	info.Name, info.KernelVersion, info.Architecture = f.name, f.kernel, f.machine
	info.OperatingSystem, info.OSVersion, info.OSType = f.system, f.systemVersion, runtime.GOOS
	info.NCPU, info.MemTotal = runtime.NumCPU(), f.memory
	info.IPv4Forwarding = f.forwarding
	info.CgroupDriver, info.CgroupVersion = "cgroupfs", f.cgroup.version
	info.MemoryLimit, info.SwapLimit, info.OomKillDisable = f.cgroup.memory, f.cgroup.swap, f.cgroup.oomKillDisable
	info.CPUCfsPeriod, info.CPUCfsQuota, info.CPUShares = f.cgroup.cpuQuota, f.cgroup.cpuQuota, f.cgroup.cpuShares
	info.CPUSet, info.PidsLimit = f.cgroup.cpuset, f.cgroup.pids
	info.SecurityOptions = f.securityOptions()
}

func (f facts) securityOptions() []string {
	options := []string{}
	if f.apparmor {
		options = append(options, "name=apparmor")
	}
	if f.seccomp {
		options = append(options, "name=seccomp,profile=builtin")
	}
	if f.cgroup.version == "2" {
		options = append(options, "name=cgroupns")
	}
	return options
}

// warnings are about what the kernel lacks, in dockerd's words.
func warnings(info apisystem.Info) []string {
	found := []string{}
	for _, check := range []struct {
		there bool
		what  string
	}{
		{info.MemoryLimit, "No memory limit support"},
		{info.SwapLimit, "No swap limit support"},
		{info.CPUCfsPeriod, "No cpu cfs period support"},
		{info.CPUCfsQuota, "No cpu cfs quota support"},
		{info.CPUShares, "No cpu shares support"},
		{info.CPUSet, "No cpuset support"},
		{info.PidsLimit, "No pids limit support"},
		{info.IPv4Forwarding, "IPv4 forwarding is disabled"},
	} {
		if !check.there {
			found = append(found, "WARNING: "+check.what)
		}
	}
	return found
}

// troubles are about binaries that do not say their version.
func troubles(components ...component) (found []string) {
	for _, c := range components {
		if c.trouble != "" {
			found = append(found, "WARNING: "+c.trouble)
		}
	}
	return found
}

// openDescriptors counts the daemon's own; 0 if it cannot see them.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries) - 1 // less the one that reads the directory
}
