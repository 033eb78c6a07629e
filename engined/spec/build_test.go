package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/docker/go-units"
	apicontainer "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

var update = flag.Bool("update", false, "write the golden files")

// input is a busybox on a bridge, as the client's defaults make it.
func input(adjust ...func(*Input)) Input {
	in := Input{
		ID:          "4f2a",
		Config:      &apicontainer.Config{Hostname: "4f2a"},
		HostConfig:  &apicontainer.HostConfig{NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "host", ShmSize: 64 << 20},
		Args:        []string{"/bin/true"},
		Rootfs:      "/layers/4f2a",
		User:        specs.User{AdditionalGids: []uint32{0}},
		NetworkPath: "/netns/4f2a",
		BlockIO:     &specs.LinuxBlockIO{},
	}
	for _, a := range adjust {
		a(&in)
	}
	return in
}

func pointer[T any](v T) *T { return &v }

var golden = map[string]func(*Input){
	"defaults": func(*Input) {},
	"terminal": func(in *Input) {
		in.Config.Tty = true
		in.Config.Env = []string{"A=b", "TERM=vt100", "HOSTNAME"}
		in.Config.WorkingDir = "/srv"
		in.HostConfig.ConsoleSize = [2]uint{24, 80}
	},
	"limits": func(in *Input) {
		h := in.HostConfig
		h.Memory, h.MemorySwap, h.MemoryReservation = 256<<20, 512<<20, 64<<20
		h.MemorySwappiness, h.OomKillDisable = pointer(int64(10)), pointer(true)
		h.NanoCPUs, h.CPUShares, h.CpusetCpus, h.CpusetMems = 1500000000, 512, "0-1", "0"
		h.PidsLimit, h.OomScoreAdj = pointer(int64(100)), 300
		h.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}, {Name: "core", Soft: -1, Hard: -1}}
	},
	"privileged": func(in *Input) {
		in.HostConfig.Privileged = true
		in.Devices = []specs.LinuxDevice{{Path: "/dev/loop0", Type: "b", Major: 7}}
	},
	"host": func(in *Input) {
		h := in.HostConfig
		h.NetworkMode, h.PidMode, h.IpcMode, h.UTSMode = "host", "host", "host", "host"
		in.HostNetwork, in.NetworkPath = true, ""
	},
	"joined": func(in *Input) {
		h := in.HostConfig
		h.NetworkMode, h.PidMode, h.IpcMode = "container:db", "container:db", "none"
		in.NetworkPath, in.PidPath = "/proc/7/ns/net", "/proc/7/ns/pid"
	},
	"mounts": func(in *Input) {
		in.HostConfig.ReadonlyRootfs = true
		in.Mounts = []specs.Mount{
			{Destination: "/a/b/c", Type: "bind", Source: "/deep", Options: []string{"rbind", "rslave"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec"}},
			{Destination: "/a", Type: "bind", Source: "/shallow", Options: []string{"rbind", "ro", "rprivate"}},
		}
	},
	"locked": func(in *Input) {
		h := in.HostConfig
		h.CapDrop, h.CapAdd = []string{"all"}, []string{"net_admin", "CAP_CHOWN"}
		h.SecurityOpt = []string{"no-new-privileges", "seccomp=unconfined", "apparmor=tight"}
		in.AppArmor = true
		h.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "80"}
		h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{"/proc/sys"}
		h.CgroupParent, h.CgroupnsMode = "/batch", "private"
		in.Config.Domainname = "example.org"
	},
}

// compact leaves of the seccomp profile what does not depend on the kernel.
func compact(s *specs.Spec) {
	if s.Linux.Seccomp != nil {
		s.Linux.Seccomp.Syscalls, s.Linux.Seccomp.Architectures = nil, nil
	}
}

func TestSpecsAreAsTheGoldenFilesSay(t *testing.T) {
	for name, adjust := range golden {
		t.Run(name, func(t *testing.T) {
			s, err := Build(input(adjust))
			if err != nil {
				t.Fatal(err)
			}
			compact(s)
			got, err := json.MarshalIndent(s, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(append(got, '\n'), want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestTheDefaultFilterAllowsWhatTheCapabilitiesNeed(t *testing.T) {
	allows := func(syscall string, adjust func(*Input)) bool {
		s, err := Build(input(adjust))
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(rule specs.LinuxSyscall) bool {
			return rule.Action == specs.ActAllow && len(rule.Args) == 0 && slices.Contains(rule.Names, syscall)
		})
	}
	if allows("mount", func(*Input) {}) {
		t.Error("mount is allowed without CAP_SYS_ADMIN")
	}
	if !allows("mount", func(in *Input) { in.HostConfig.CapAdd = []string{"SYS_ADMIN"} }) {
		t.Error("mount is refused with CAP_SYS_ADMIN")
	}
}

func TestSecurityOptionsThatCannotBe(t *testing.T) {
	for option, kind := range map[string]errdefs.Kind{
		"apparmor=tight":      errdefs.InvalidArgument, // not enabled here
		"seccomp={":           errdefs.InvalidArgument,
		"seccomp":             errdefs.InvalidArgument,
		"colour=red":          errdefs.InvalidArgument,
		"label=level:s0":      errdefs.NotImplemented,
		"no-new-privileges=x": errdefs.InvalidArgument,
	} {
		_, err := Build(input(func(in *Input) { in.HostConfig.SecurityOpt = []string{option} }))
		if errdefs.KindOf(err) != kind {
			t.Errorf("%s: %v", option, err)
		}
	}
	_, err := Build(input(func(in *Input) { in.HostConfig.CapAdd = []string{"FLY"} }))
	if errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("CAP_FLY: %v", err)
	}
}

func TestAnExecHasTheContainersPowersAndNoMore(t *testing.T) {
	in := input(func(in *Input) {
		in.HostConfig.CapDrop = []string{"ALL"}
		in.HostConfig.SecurityOpt = []string{"no-new-privileges"}
		in.Config.Env, in.Config.WorkingDir = []string{"A=1", "B=1"}, "/srv"
	})
	p, err := Exec(in.Config, in.HostConfig, apicontainer.ExecCreateRequest{Cmd: []string{"id"}, Env: []string{"B=2"}}, specs.User{UID: 7})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Capabilities.Bounding) != 0 || !p.NoNewPrivileges || p.Cwd != "/srv" || p.User.UID != 7 {
		t.Errorf("process %+v, capabilities %v", p, p.Capabilities.Bounding)
	}
	if want := []string{defaultPath, "HOSTNAME=4f2a", "A=1", "B=2"}; !slices.Equal(p.Env, want) {
		t.Errorf("environment %v", p.Env)
	}
	p, err = Exec(in.Config, in.HostConfig, apicontainer.ExecCreateRequest{Cmd: []string{"id"}, Privileged: true}, specs.User{})
	if err != nil || len(p.Capabilities.Bounding) != len(AllCapabilities()) {
		t.Errorf("privileged: %v, %v", p.Capabilities.Bounding, err)
	}
}

// TestTheDefaultsAreDockerds compares with what dockerd wrote for
// `docker run -m 256m --cpus 1 --pids-limit 100 --hostname bench --net none`.
func TestTheDefaultsAreDockerds(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "dockerd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var theirs specs.Spec
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	ours, err := Build(input(func(in *Input) {
		h := in.HostConfig
		h.Memory, h.MemorySwap, h.NanoCPUs, h.PidsLimit = 256<<20, 512<<20, 1e9, pointer(int64(100))
		h.OomKillDisable, h.NetworkMode, in.NetworkPath = pointer(false), "none", ""
		in.Config.Hostname = "bench"
		for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
			in.Mounts = append(in.Mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: "etc/" + name, Options: []string{"rbind", "rprivate"}})
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	types := func(list []specs.LinuxNamespace) (types []string) {
		for _, n := range list {
			types = append(types, string(n.Type))
		}
		slices.Sort(types)
		return types
	}
	for what, pair := range map[string][2]any{
		"process":    {ours.Process, theirs.Process},
		"hostname":   {ours.Hostname, theirs.Hostname},
		"mounts":     {ours.Mounts, theirs.Mounts},
		"sysctl":     {ours.Linux.Sysctl, theirs.Linux.Sysctl},
		"namespaces": {types(ours.Linux.Namespaces), types(theirs.Linux.Namespaces)},
		"devices":    {ours.Linux.Resources.Devices, theirs.Linux.Resources.Devices},
		"memory":     {ours.Linux.Resources.Memory, theirs.Linux.Resources.Memory},
		"pids":       {ours.Linux.Resources.Pids, theirs.Linux.Resources.Pids},
		"quota":      {ours.Linux.Resources.CPU.Quota, theirs.Linux.Resources.CPU.Quota},
		"read-only":  {ours.Linux.ReadonlyPaths, theirs.Linux.ReadonlyPaths},
	} {
		a, b := encode(t, pair[0]), encode(t, pair[1])
		if a != b {
			t.Errorf("%s:\nours   %s\ndockerd's %s", what, a, b)
		}
	}
	for _, path := range theirs.Linux.MaskedPaths { // ours are those of a newer dockerd
		if !slices.Contains(ours.Linux.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
