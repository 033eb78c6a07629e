package spec

import (
	"maps"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// namespaces lists what the container does not share with the host.
func namespaces(in Input) []specs.LinuxNamespace {
	spaces := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	add := func(typ specs.LinuxNamespaceType, path string) {
		spaces = append(spaces, specs.LinuxNamespace{Type: typ, Path: path})
	}
	host := in.HostConfig
	if !in.HostNetwork {
		add(specs.NetworkNamespace, in.NetworkPath)
	}
	if !host.UTSMode.IsHost() {
		add(specs.UTSNamespace, "")
	}
	if !host.PidMode.IsHost() {
		add(specs.PIDNamespace, in.PidPath)
	}
	if !host.IpcMode.IsHost() {
		add(specs.IPCNamespace, in.IpcPath)
	}
	if host.CgroupnsMode.IsPrivate() {
		add(specs.CgroupNamespace, "")
	}
	return spaces
}

// sysctls returns those asked for and, in a network namespace of its own, two
// that let unprivileged processes ping and listen on low ports.
func sysctls(in Input) map[string]string {
	values := make(map[string]string)
	if in.HostConfig.NetworkMode.IsPrivate() {
		values["net.ipv4.ip_unprivileged_port_start"] = "0"
		values["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	if in.Config.Domainname != "" && in.HostConfig.UTSMode.IsPrivate() {
		values["kernel.domainname"] = in.Config.Domainname
	}
	maps.Copy(values, in.HostConfig.Sysctls)
	return values
}
