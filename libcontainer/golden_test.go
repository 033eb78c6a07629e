package libcontainer

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/libcontainer/seccomp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// baseSpec is a small container: new namespaces, /proc, /dev, /sys.
func baseSpec() *specs.Spec {
	caps := []string{"CAP_KILL"}
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"sh"}, Cwd: "/", Env: []string{"PATH=/bin:/usr/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		}},
	}
}

// fixedFacts are a host that never changes.
func fixedFacts() *facts {
	return &facts{
		root: rootfs.Host{
			Bundle: "/bundle", Rootfs: "/bundle/rootfs", ParentMount: "/bundle", NullMount: "/dev", Kcore: true, CgroupMode: cgroup.V1,
			Hierarchies: []cgroup.Hierarchy{
				{Name: "cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Mountpoint: "/sys/fs/cgroup/cpu,cpuacct", Root: "/", OwnPath: "/"},
				{Name: "name=systemd", Mountpoint: "/sys/fs/cgroup/systemd", Root: "/", OwnPath: "/"},
			},
			Cgroup:      cgroup.Location{V1: map[string]string{"cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct/c", "name=systemd": "/sys/fs/cgroup/systemd/c"}},
			IsDirectory: func(path string) (bool, error) { return filepath.Ext(path) == "", nil },
			IsProc:      func(path string) bool { return path == "/proc" },
		},
		id: "c", joinFiles: []string{"/sys/fs/cgroup/cpu,cpuacct/c/tasks"},
		fd: descriptors{fifo: -1, console: -1, container: -1, firstFree: 3}, available: 1<<41 - 1, keyring: true,
	}
}

// goldenV2 is a host with only the unified hierarchy.
func goldenV2(f *facts) {
	f.root.CgroupMode, f.root.Hierarchies = cgroup.V2, []cgroup.Hierarchy{{Mountpoint: "/sys/fs/cgroup", Root: "/", OwnPath: "/"}}
	f.root.Cgroup, f.joinFiles = cgroup.Location{V2: "/sys/fs/cgroup/c"}, nil
}

func addMount(m specs.Mount) func(*specs.Spec, *facts) {
	return func(s *specs.Spec, _ *facts) { s.Mounts = append(s.Mounts, m) }
}

var cgroupMount = specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}}

var goldenPlans = map[string]func(*specs.Spec, *facts){
	"base":   func(*specs.Spec, *facts) {},
	"create": func(_ *specs.Spec, f *facts) { f.fd.fifo = 3 },
	"names": func(s *specs.Spec, _ *facts) {
		s.Hostname, s.Domainname = "host", "domain"
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "1", "kernel.shmmax": "5"}
	},
	"joined-namespaces": func(s *specs.Spec, _ *facts) {
		for i := range s.Linux.Namespaces[:4] {
			s.Linux.Namespaces[i].Path = "/run/ns/" + string(s.Linux.Namespaces[i].Type)
		}
	},
	"cgroup-v1": addMount(cgroupMount),
	"cgroup-v1-namespace": func(s *specs.Spec, f *facts) {
		addMount(cgroupMount)(s, f)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	},
	"cgroup-v1-late-cpu": func(s *specs.Spec, f *facts) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/hook"}}}
		f.lateCPU, f.lateFile = true, "/sys/fs/cgroup/cpuset/c/tasks"
	},
	"cgroup-v2": func(s *specs.Spec, f *facts) {
		goldenV2(f)
		addMount(cgroupMount)(s, f)
	},
	"bind-file":      addMount(specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: "hosts.txt", Options: []string{"rbind", "rprivate", "ro"}}),
	"bind-directory": addMount(specs.Mount{Destination: "data", Source: "/srv/data", Options: []string{"rbind", "rslave", "nosuid", "noatime", "rro"}}),
	"bind-over-dev":  addMount(specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind"}}),
	"tmpfs-readonly": addMount(specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "size=1m", "rprivate"}}),
	"lxcfs":          addMount(specs.Mount{Destination: "/proc/meminfo", Type: "bind", Source: "/var/lib/lxcfs/meminfo.x", Options: []string{"bind"}}),
	"masks": func(s *specs.Spec, _ *facts) {
		s.Linux.MaskedPaths = []string{"/proc/kcore", "/sys/firmware"}
		s.Linux.ReadonlyPaths = []string{"/proc/sys"}
		s.Root.Readonly = true
	},
	"devices": func(s *specs.Spec, _ *facts) {
		mode, id := os.FileMode(0o640), uint32(5)
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &id, GID: &id},
			{Path: "/dev/pipe", Type: "p"},
		}
	},
	"user-namespace": func(s *specs.Spec, _ *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	},
	"propagation-shared": func(s *specs.Spec, _ *facts) { s.Linux.RootfsPropagation = "rshared" },
	"no-pivot":           func(_ *specs.Spec, f *facts) { f.root.NoPivot, f.keyring = true, false },
	"terminal": func(s *specs.Spec, f *facts) {
		s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 24, Width: 80}
		f.fd.fifo, f.fd.console = 3, 4
	},
	"process": func(s *specs.Spec, f *facts) {
		adj, umask := 100, uint32(0o77)
		p := s.Process
		p.User = specs.User{UID: 1000, GID: 100, AdditionalGids: []uint32{5, 6}, Umask: &umask}
		p.OOMScoreAdj, p.NoNewPrivileges = &adj, true
		p.Env = []string{"PATH=/a", "HOME=", "X=1", "PATH=/b"}
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}}
		p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 5}
		p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
		p.ApparmorProfile, f.apparmor = "docker-default", true
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	},
	"time": func(s *specs.Spec, f *facts) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 5}}
	},
	"pod": func(s *specs.Spec, f *facts) { // joins the sandbox's user and network namespace
		s.Linux.Namespaces[1].Path = "/run/ns/net"
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/run/ns/user"})
	},
	"id-map": func(s *specs.Spec, f *facts) {
		ids := []specs.LinuxIDMapping{{HostID: 100, Size: 10}}
		addMount(specs.Mount{Destination: "/data", Type: "bind", Source: "/srv/data", Options: []string{"rbind", "ridmap", "ro"}, UIDMappings: ids, GIDMappings: ids})(s, f)
		f.root.Trees = map[int]int{4: 3}
	},
	"copy-up": addMount(specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}}),
	"remount": addMount(specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"bind", "remount", "ro"}}),
	"labels": func(s *specs.Spec, f *facts) {
		s.Process.SelinuxLabel, f.root.Label = "user:role:type:s0", "user:role:file:s0:c1,c2"
	},
	"listener": func(_ *specs.Spec, f *facts) {
		f.fd.fifo, f.filter = 3, &seccomp.Filter{Program: make([]byte, 16), Flags: 2, Notify: true}
	},
	"filter": func(_ *specs.Spec, f *facts) { f.filter = &seccomp.Filter{Program: make([]byte, 16), Flags: 2} },
	"hooks": func(s *specs.Spec, f *facts) {
		one := []specs.Hook{{Path: "/hook"}}
		s.Hooks = &specs.Hooks{CreateRuntime: one, StartContainer: one}
		f.fd.state, f.fd.output = 3, 4
	},
}

func TestPlans(t *testing.T) {
	plans := maps.Clone(goldenPlans)
	maps.Copy(plans, fieldPlans)
	for name, change := range plans {
		t.Run(name, func(t *testing.T) {
			spec, f := baseSpec(), fixedFacts()
			change(spec, f)
			if err := validate(spec); err != nil && name != "user-namespace" {
				t.Fatal(err)
			}
			plan, err := compilePlan(spec, f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plan.Encode(); err != nil {
				t.Fatal(err)
			}
			compareGolden(t, name, plan.String())
		})
	}
}

func TestExecPlan(t *testing.T) {
	f := fixedFacts()
	f.fd = descriptors{fifo: -1, console: 3, container: 4, firstFree: 3}
	process := baseSpec().Process
	process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "0"}
	process.Terminal = true
	plan, err := compileExec(process, &specs.Linux{}, 0x2c020000, f)
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "exec", plan.String())
}

func TestExecPlans(t *testing.T) {
	for name, change := range execPlans {
		t.Run(name, func(t *testing.T) {
			f, process, linux := fixedFacts(), baseSpec().Process, &specs.Linux{}
			f.fd.container = 3
			change(process, linux, f)
			if err := validateProcess(process, "process"); err != nil {
				t.Fatal(err)
			}
			plan, err := compileExec(process, linux, 0x2c020000, f)
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, name, plan.String())
		})
	}
}

// Each golden file is somebody's.
func TestNoGoldenFileIsStale(t *testing.T) {
	files, err := filepath.Glob("testdata/plans/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		if !hasKey(goldenPlans, name) && !hasKey(fieldPlans, name) && !hasKey(execPlans, name) && name != "exec" {
			t.Errorf("%s: no test compares it", file)
		}
	}
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "plans", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the plan differs from %s (go test -update writes it anew):\n%s", path, got)
	}
}
