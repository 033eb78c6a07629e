package spec

import (
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultShmSize is /dev/shm's size in bytes if nobody says otherwise.
const defaultShmSize = 64 << 20

// defaultMounts is what every container has, in the order it is mounted.
func defaultMounts(in Input) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if shm, has := shmMount(in); has {
		list = append(list, shm)
	}
	return list
}

func shmMount(in Input) (specs.Mount, bool) {
	switch {
	case in.HostConfig.IpcMode.IsNone():
		return specs.Mount{}, false
	case in.HostConfig.IpcMode.IsHost():
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}, true
	case in.Shm != "":
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Shm, Options: []string{"rbind", "rprivate"}}, true
	}
	size := in.HostConfig.ShmSize
	if size == 0 {
		size = defaultShmSize
	}
	return specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}}, true
}

// mounts puts the container's own mounts over the default ones.
func mounts(s *specs.Spec, in Input) {
	own := slices.Clone(in.Mounts)
	sort.SliceStable(own, func(i, j int) bool { return depth(own[i].Destination) < depth(own[j].Destination) })
	for _, m := range defaultMounts(in) {
		if !replaced(m.Destination, own) {
			s.Mounts = append(s.Mounts, adjust(m, in))
		}
	}
	s.Mounts = append(s.Mounts, own...)
	s.Linux.RootfsPropagation = rootPropagation(own)
}

func depth(destination string) int { return strings.Count(path.Clean(destination), "/") }

// replaced says whether the container mounts something of its own in a default
// mount's place, or over /dev, which takes the mounts below with it.
func replaced(destination string, own []specs.Mount) bool {
	for _, m := range own {
		at := path.Clean(m.Destination)
		if at == destination || at == "/dev" && strings.HasPrefix(destination, "/dev/") {
			return true
		}
	}
	return false
}

// adjust makes a default mount writable for a privileged container, and
// read-only for one with a read-only root.
func adjust(m specs.Mount, in Input) specs.Mount {
	if in.HostConfig.Privileged && (m.Type == "sysfs" || m.Type == "cgroup") {
		m.Options = slices.DeleteFunc(m.Options, func(option string) bool { return option == "ro" })
	}
	writable := []string{"/proc", "/dev", "/dev/shm", "/dev/mqueue", "/dev/pts"}
	if in.HostConfig.ReadonlyRootfs && !slices.Contains(writable, m.Destination) && !slices.Contains(m.Options, "ro") {
		m.Options = append(m.Options, "ro")
	}
	return m
}

// rootPropagation is the propagation the root needs for a mount below to get
// its own: shared or slave are not possible under a private root.
func rootPropagation(own []specs.Mount) string {
	propagation := ""
	for _, m := range own {
		for _, option := range m.Options {
			switch option {
			case "shared", "rshared":
				return "shared"
			case "slave", "rslave":
				propagation = "rslave"
			}
		}
	}
	return propagation
}
