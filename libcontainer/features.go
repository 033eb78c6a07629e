package libcontainer

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/libcontainer/seccomp"
)

// Features says what this build does, from the tables that do it.
func Features(version, commit string) *features.Features {
	yes := true
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
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: sortedKeys(memoryModes), Flags: sortedKeys(memoryFlags)},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
		Annotations: annotations(version, commit),
		// What a caller should not let a stranger set: one names a file for criu,
		// the others, by their beginning, properties of systemd's unit.
		PotentiallyUnsafeConfigAnnotations: []string{criuAnnotation, cgroup.AnnotationPrefix},
	}
}

// sortedKeys lists a table's names in order.
func sortedKeys[K ~string, V any](table map[K]V) []string {
	names := make([]string, 0, len(table))
	for name := range table {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
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
