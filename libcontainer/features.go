package libcontainer

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/libcontainer/seccomp"
)

// Features says what this build does, from the tables that do it. What is
// refused as not implemented (see checkUnsupported) is false here.
func Features(version, commit string) *features.Features {
	yes, no := true, false
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  rootfs.MountOptions(),
		Linux: &features.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: capabilityNames,
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Actions: seccomp.Actions(), Operators: seccomp.Operators(), Archs: seccomp.Architectures(),
				KnownFlags: seccomp.Flags(), SupportedFlags: seccomp.SupportedFlags(),
			},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &no},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &no},
		},
		Annotations: annotations(version, commit),
	}
}

func annotations(version, commit string) map[string]string {
	list := map[string]string{
		"io.github.seccomp.libseccomp.version":         seccomp.LibraryVersion(),
		"com.github.engined.ocirun.version":            version,
		"com.github.engined.ocirun.checkpoint.enabled": "true",
	}
	if commit != "" {
		list["com.github.engined.ocirun.commit"] = commit
	}
	return list
}
