package libcontainer

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/resctrl"
	"github.com/engined/engined/libcontainer/seccomp"
)

// user puts the container into a user namespace with one range of ids.
func inUserNamespace(s *specs.Spec, _ *facts) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = s.Linux.UIDMappings
}

// onlyMount leaves the container nothing of its own but its mounts.
func onlyMount(s *specs.Spec, _ *facts) {
	s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
}

// boundSys is what `spec --rootless` writes for /sys.
func boundSys(s *specs.Spec, f *facts) {
	s.Mounts[3] = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	addMount(cgroupMount)(s, f)
}

func bindWith(options ...string) func(*specs.Spec, *facts) {
	return addMount(specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: append([]string{"rbind"}, options...)})
}

func all(changes ...func(*specs.Spec, *facts)) func(*specs.Spec, *facts) {
	return func(s *specs.Spec, f *facts) {
		for _, change := range changes {
			change(s, f)
		}
	}
}

// fieldPlans show one field, or one way of it, each.
var fieldPlans = map[string]func(*specs.Spec, *facts){
	// Namespaces.
	"namespaces-host": onlyMount,
	"namespaces-all": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
	},
	"namespace-mount-joined": func(s *specs.Spec, _ *facts) { s.Linux.Namespaces[4].Path = "/run/ns/mnt" },
	"namespace-pid-joined":   func(s *specs.Spec, _ *facts) { s.Linux.Namespaces[0].Path = "/run/ns/pid" },
	"namespace-time-joined": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace, Path: "/run/ns/time"})
	},
	"namespace-cgroup-joined": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: "/run/ns/cgroup"})
	},
	"no-mount-namespace": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces, s.Root.Readonly = s.Linux.Namespaces[:4], true
	},
	"user-namespace-maps":           inUserNamespace,
	"user-namespace-joined-network": all(inUserNamespace, func(s *specs.Spec, _ *facts) { s.Linux.Namespaces[1].Path = "/run/ns/net" }),
	"user-namespace-devices": all(inUserNamespace, func(s *specs.Spec, _ *facts) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
	}),
	"user-namespace-cgroup-files": all(inUserNamespace, func(_ *specs.Spec, f *facts) { f.joinFDs = []int{5} }),
	"user-namespace-bind":         all(inUserNamespace, bindWith("ro"), func(_ *specs.Spec, f *facts) { f.root.Trees = map[int]int{4: 3} }),
	"time-offsets": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -5}, "monotonic": {Secs: 1, Nanosecs: 5}}
	},
	"net-devices": func(s *specs.Spec, _ *facts) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth1": {Name: "eth0"}}
	},

	// Mounts.
	"mount-nothing": func(s *specs.Spec, _ *facts) { s.Mounts = nil },
	"mount-type":    addMount(specs.Mount{Destination: "/mnt", Type: "ext4", Source: "/dev/loop0", Options: []string{"noatime", "data=ordered"}}),
	"mount-mqueue":  addMount(specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}}),
	"mount-shm":     addMount(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}}),
	"mount-proc-bound": func(s *specs.Spec, _ *facts) {
		s.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
	},
	"mount-dev-readonly":        func(s *specs.Spec, _ *facts) { s.Mounts[1].Options = append(s.Mounts[1].Options, "ro") },
	"mount-dots":                addMount(specs.Mount{Destination: "/a/../../b/./c", Type: "tmpfs", Source: "tmpfs"}),
	"bind-relative":             addMount(specs.Mount{Destination: "/data", Type: "bind", Source: "../data", Options: []string{"bind"}}),
	"bind-recursive-attributes": bindWith("rro", "rnosuid", "rnodev", "rnoexec", "rnoatime"),
	"bind-recursive-cleared":    bindWith("ro", "rrw", "rexec"),
	"bind-access-times":         bindWith("strictatime", "nodiratime"),
	"bind-nosymfollow":          bindWith("nosymfollow"),
	"bind-shared":               bindWith("rshared"),
	"bind-unbindable":           bindWith("unbindable"),
	"bind-idmap-of-container":   all(inUserNamespace, bindWith("idmap"), func(_ *specs.Spec, f *facts) { f.root.Trees = map[int]int{4: 3} }),
	"propagation-private":       func(s *specs.Spec, _ *facts) { s.Linux.RootfsPropagation = "private" },
	"propagation-unbindable":    func(s *specs.Spec, _ *facts) { s.Linux.RootfsPropagation = "runbindable" },
	"cgroup-v2-namespace": func(s *specs.Spec, f *facts) {
		goldenV2(f)
		addMount(cgroupMount)(s, f)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	},
	"cgroup-v2-below-bound-sys": all(boundSys, func(_ *specs.Spec, f *facts) { goldenV2(f) }),
	"cgroup-v2-user-namespace":  all(inUserNamespace, addMount(cgroupMount), func(_ *specs.Spec, f *facts) { goldenV2(f) }),
	"cgroup-v2-undelegated": all(boundSys, func(_ *specs.Spec, f *facts) {
		goldenV2(f)
		f.root.Cgroup = cgroup.Location{}
	}),
	"unprivileged": all(inUserNamespace, func(_ *specs.Spec, f *facts) { f.user = caller{unprivileged: true, noGroups: true} }),
	"cgroup-writable": func(s *specs.Spec, f *facts) {
		writable := cgroupMount
		writable.Options = []string{"rw"}
		addMount(writable)(s, f)
	},
	"cgroup-hybrid": func(s *specs.Spec, f *facts) {
		f.root.CgroupMode = cgroup.Hybrid
		f.root.Hierarchies = append(f.root.Hierarchies, cgroup.Hierarchy{Mountpoint: "/sys/fs/cgroup/unified", Root: "/", OwnPath: "/"})
		f.root.Cgroup.V2 = "/sys/fs/cgroup/unified/c"
		addMount(cgroupMount)(s, f)
	},

	// Devices.
	"device-block": func(s *specs.Spec, _ *facts) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sda", Type: "b", Major: 8, FileMode: pointerTo(os.FileMode(0o660)), GID: pointerTo(uint32(6))}}
	},
	"device-deep": func(s *specs.Spec, _ *facts) {
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/net/tun", Type: "u", Major: 10, Minor: 200}}
	},

	// The process.
	"process-capabilities": func(s *specs.Spec, _ *facts) {
		one, two := []string{"CAP_CHOWN"}, []string{"CAP_CHOWN", "CAP_NET_RAW"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: two, Effective: one, Permitted: two, Inheritable: one, Ambient: two}
	},
	"process-no-capabilities": func(s *specs.Spec, _ *facts) { s.Process.Capabilities = nil },
	"process-few-available":   func(_ *specs.Spec, f *facts) { f.available = 1 << 5 },
	"process-rlimits": func(s *specs.Spec, _ *facts) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NPROC", Soft: 10, Hard: 1<<64 - 1}}
	},
	"process-deadline": func(s *specs.Spec, _ *facts) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 1e6, Deadline: 2e6, Period: 3e6, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	},
	"process-realtime": func(s *specs.Spec, _ *facts) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 9}
	},
	"process-io-idle": func(s *specs.Spec, _ *facts) {
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE}
	},
	"process-personality": func(s *specs.Spec, _ *facts) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} },
	"process-memory-policy": func(s *specs.Spec, _ *facts) {
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolInterleave, Nodes: "0-1,3", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	},
	"process-oom-in-user-namespace": all(inUserNamespace, func(s *specs.Spec, _ *facts) { s.Process.OOMScoreAdj = pointerTo(-500) }),
	"process-preserved-descriptors": func(_ *specs.Spec, f *facts) { f.fd.firstFree, f.fd.fifo = 6, 6 },
	"process-user-and-filter": func(s *specs.Spec, f *facts) {
		s.Process.User.UID, f.filter = 1000, &seccomp.Filter{Program: make([]byte, 8)}
	},
	"process-filter-no-new-privileges": func(s *specs.Spec, f *facts) {
		s.Process.NoNewPrivileges, f.filter = true, &seccomp.Filter{Program: make([]byte, 8)}
	},
	"process-label":            func(s *specs.Spec, _ *facts) { s.Process.SelinuxLabel = "system_u:system_r:container_t:s0" },
	"process-apparmor-absent":  func(s *specs.Spec, _ *facts) { s.Process.ApparmorProfile = "unconfined" },
	"process-listener-running": func(_ *specs.Spec, f *facts) { f.filter = &seccomp.Filter{Program: make([]byte, 8), Notify: true} },
	"process-terminal-sized": func(s *specs.Spec, f *facts) {
		s.Process.Terminal, s.Process.ConsoleSize, f.fd.console = true, &specs.Box{Height: 50, Width: 132}, 3
	},
	"resctrl": func(_ *specs.Spec, f *facts) {
		f.joinFiles = append(f.joinFiles, resctrl.Group{Dir: "/sys/fs/resctrl/gold", Monitor: "/sys/fs/resctrl/gold/mon_groups/c"}.TaskFiles()...)
	},
	"hooks-of-create": func(s *specs.Spec, f *facts) {
		one, minute := []specs.Hook{{Path: "/hook"}}, 60
		two := []specs.Hook{{Path: "/hook", Args: []string{"first", "of"}, Env: []string{"A=b"}}, {Path: "/second", Timeout: &minute}}
		s.Hooks = &specs.Hooks{CreateContainer: one, StartContainer: two, Poststart: one, Poststop: one}
		f.fd.fifo, f.fd.state, f.fd.output, f.fd.report = 3, 4, 5, 6
		f.filter = &seccomp.Filter{Program: make([]byte, 16)}
	},
}

// execPlans are of further processes.
var execPlans = map[string]func(*specs.Process, *specs.Linux, *facts){
	"exec-user": func(p *specs.Process, _ *specs.Linux, _ *facts) {
		p.User, p.Cwd = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{4}}, "/home"
	},
	"exec-filter": func(p *specs.Process, _ *specs.Linux, f *facts) {
		p.NoNewPrivileges, f.filter = true, &seccomp.Filter{Program: make([]byte, 8)}
	},
	"exec-confined": func(p *specs.Process, _ *specs.Linux, f *facts) {
		p.ApparmorProfile, f.apparmor, p.SelinuxLabel = "docker-default", true, "system_u:system_r:container_t:s0"
	},
	"exec-limits": func(p *specs.Process, l *specs.Linux, _ *facts) {
		p.OOMScoreAdj, p.Rlimits = pointerTo(7), []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 3, Hard: 4}}
		p.Scheduler, p.IOPriority = &specs.Scheduler{Policy: specs.SchedIdle}, &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 7}
		l.Personality, l.MemoryPolicy = &specs.LinuxPersonality{Domain: specs.PerLinux32}, &specs.LinuxMemoryPolicy{Mode: specs.MpolLocal}
	},
	"exec-unprivileged":       func(_ *specs.Process, _ *specs.Linux, f *facts) { f.user = caller{unprivileged: true, noGroups: true} },
	"exec-no-mount-namespace": func(_ *specs.Process, _ *specs.Linux, f *facts) { f.rootfs = "/bundle/rootfs" },
}
