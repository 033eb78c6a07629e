package container

import (
	"maps"
	"os"
	"path"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/engined/engined/engined/spec"
	"github.com/engined/engined/proto/errdefs"
)

// mergeConfig returns what a client asked for, completed by the image.
func mergeConfig(asked *apicontainer.Config, from dockerspec.DockerOCIImageConfig) (*apicontainer.Config, error) {
	c := *asked
	if c.User == "" {
		c.User = from.User
	}
	if err := mergePorts(&c, from); err != nil {
		return nil, err
	}
	c.Env = spec.MergeEnv(from.Env, c.Env)
	c.Labels = overlay(from.Labels, c.Labels)
	c.Volumes = overlay(from.Volumes, c.Volumes)
	// An entrypoint of the client's own does not go with the image's command.
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	// [""] is how a client says: none.
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if c.WorkingDir != "" {
		if !path.IsAbs(c.WorkingDir) {
			return nil, errdefs.InvalidArgument.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
		}
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	if c.Healthcheck == nil || len(c.Healthcheck.Test) == 0 && from.Healthcheck != nil {
		c.Healthcheck = from.Healthcheck
	}
	return &c, nil
}

func mergePorts(c *apicontainer.Config, from dockerspec.DockerOCIImageConfig) error {
	ports := make(apinetwork.PortSet)
	for text := range from.ExposedPorts {
		port, err := apinetwork.ParsePort(text)
		if err != nil {
			return errdefs.InvalidArgument.Errorf("the image exposes port %q: %w", text, err)
		}
		ports[port] = struct{}{}
	}
	maps.Copy(ports, c.ExposedPorts)
	if len(ports) > 0 {
		c.ExposedPorts = ports
	}
	return nil
}

// overlay returns a map with what is in over put over what is in under, or
// over itself if there is nothing under it.
func overlay[V any](under, over map[string]V) map[string]V {
	if len(under) == 0 {
		return over
	}
	both := maps.Clone(under)
	maps.Copy(both, over)
	return both
}

func cloneHost(asked *apicontainer.HostConfig) *apicontainer.HostConfig {
	if asked == nil {
		return &apicontainer.HostConfig{}
	}
	h := *asked
	return &h
}

// fillIn puts the defaults in that a client can see with inspect.
func (s *Service) fillIn(r *Record) error {
	h, c := r.HostConfig, r.Config
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = s.Networks.Default()
	}
	if c.NetworkDisabled {
		h.NetworkMode = apinetwork.NetworkNone
	}
	if h.IpcMode == "" {
		h.IpcMode = apicontainer.IPCModePrivate
	}
	if h.CgroupnsMode == "" {
		h.CgroupnsMode = apicontainer.CgroupnsModeHost
		if s.CgroupV2 && !h.Privileged {
			h.CgroupnsMode = apicontainer.CgroupnsModePrivate
		}
	}
	if h.CgroupParent == "" {
		h.CgroupParent = s.CgroupParent
	}
	if h.ShmSize == 0 && h.IpcMode.IsPrivate() {
		h.ShmSize = 64 << 20
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory // what no client says is: as much swap again
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = apicontainer.RestartPolicyDisabled
	}
	fillInLog(&h.LogConfig, s.LogConfig)
	return fillInHostname(r)
}

// fillInLog makes config complete: the daemon's options are those of its own
// driver, and given ones go before them.
func fillInLog(config *apicontainer.LogConfig, fallback apicontainer.LogConfig) {
	if fallback.Type == "" {
		fallback.Type = jsonFile
	}
	if config.Type == "" {
		config.Type = fallback.Type
	}
	options := map[string]string{}
	if config.Type == fallback.Type {
		maps.Copy(options, fallback.Config)
	}
	maps.Copy(options, config.Config)
	config.Config = options
}

func fillInHostname(r *Record) error {
	c, h := r.Config, r.HostConfig
	if c.Hostname == "" && (h.NetworkMode.IsHost() || h.UTSMode.IsHost()) {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		c.Hostname = name
	}
	if c.Hostname == "" {
		c.Hostname = r.ID[:12]
	}
	// docker run --hostname a.b.c: the client sends it whole, and so it stays.
	c.Hostname = strings.TrimSpace(c.Hostname)
	return nil
}
