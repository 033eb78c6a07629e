package spec

import (
	"cmp"
	"path"

	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Input is all that a container's spec is made of.
type Input struct {
	ID         string
	Config     *apicontainer.Config
	HostConfig *apicontainer.HostConfig
	Args       []string // entrypoint and command, not empty
	Rootfs     string   // absolute path, mounted

	User        specs.User
	Mounts      []specs.Mount // binds, volumes and tmpfs of the container, /etc files among them
	Devices     []specs.LinuxDevice
	DeviceRules []specs.LinuxDeviceCgroup // for Devices and HostConfig.DeviceCgroupRules
	BlockIO     *specs.LinuxBlockIO

	HostNetwork bool
	NetworkPath string // namespace to join, "": a new one
	IpcPath     string // another container's, for IpcMode container:X
	PidPath     string // another container's, for PidMode container:X
	Shm         string // directory to share as /dev/shm, "": a tmpfs of its own

	AppArmor bool // the machine enforces AppArmor
}

// defaultCgroupParent is where containers go that name no other place.
const defaultCgroupParent = "/engined"

// Build makes the spec.
func Build(in Input) (*specs.Spec, error) {
	s := &specs.Spec{
		Version:     specs.Version,
		Root:        &specs.Root{Path: in.Rootfs, Readonly: in.HostConfig.ReadonlyRootfs},
		Process:     process(in),
		Linux:       &specs.Linux{CgroupsPath: path.Join(cmp.Or(in.HostConfig.CgroupParent, defaultCgroupParent), in.ID)},
		Annotations: in.HostConfig.Annotations,
	}
	if in.HostConfig.UTSMode.IsPrivate() {
		s.Hostname = in.Config.Hostname
	}
	s.Linux.Namespaces = namespaces(in)
	s.Linux.Sysctl = sysctls(in)
	s.Linux.Resources = resources(in)
	s.Linux.Devices = in.Devices
	mounts(s, in)
	if err := secure(s, in); err != nil {
		return nil, err
	}
	return s, nil
}
