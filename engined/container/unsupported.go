package container

import (
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/proto/errdefs"
)

const jsonFile = "json-file"

// unsupported answers for what can be asked for and is not implemented: an error at
// create, rather than a container that lacks it.
func unsupported(r *Record) error {
	for _, demand := range demands {
		if demand.made(r.Config, r.HostConfig) {
			return errdefs.NotImplemented.Errorf("%s", demand.text+" not implemented")
		}
	}
	return nil
}

// demands is the list of them; the text names the field.
var demands = []struct {
	text string
	made func(c *apicontainer.Config, h *apicontainer.HostConfig) bool
}{
	{"HostConfig.PortBindings: published ports are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return len(h.PortBindings) > 0 }},
	{"HostConfig.PublishAllPorts: published ports are", func(c *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.PublishAllPorts && len(c.ExposedPorts) > 0
	}},
	{"HostConfig.RestartPolicy: restart policies other than \"no\" are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.RestartPolicy.Name != apicontainer.RestartPolicyDisabled
	}},
	{"Config.Healthcheck: health checks are", func(c *apicontainer.Config, _ *apicontainer.HostConfig) bool {
		return c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE"
	}},
	{"HostConfig.Links: links are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return len(h.Links) > 0 }},
	{"HostConfig.DeviceRequests: device drivers are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return len(h.DeviceRequests) > 0 }},
	{"HostConfig.VolumesFrom: other containers' volumes are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return len(h.VolumesFrom) > 0 }},
	{"HostConfig.VolumeDriver: volume drivers are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.VolumeDriver != "" && h.VolumeDriver != localDriver
	}},
	{"HostConfig.Init: an init process inside the container is", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return h.Init != nil && *h.Init }},
	{"HostConfig.LogConfig: log drivers other than json-file, local and none are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.LogConfig.Type != jsonFile && h.LogConfig.Type != "local" && h.LogConfig.Type != "none"
	}},
	{"HostConfig.Runtime: runtimes other than ocirun are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.Runtime != "" && h.Runtime != defaultRuntime
	}},
	{"HostConfig.Cgroup: sharing a cgroup is", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return h.Cgroup != "" }},
	{"HostConfig.Isolation: isolation technologies other than the default are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool { return !h.Isolation.IsDefault() }},
	{"HostConfig.IpcMode: shareable IPC namespaces are", func(_ *apicontainer.Config, h *apicontainer.HostConfig) bool {
		return h.IpcMode.IsShareable() || h.IpcMode.IsContainer()
	}},
}
