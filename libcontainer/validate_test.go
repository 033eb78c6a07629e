package libcontainer

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

func users(s *specs.Spec, maps ...specs.LinuxIDMapping) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
}

func TestValidateNamesTheField(t *testing.T) {
	zero := 0
	loud := 5000
	for _, c := range []struct {
		field, text string
		kind        errdefs.Kind
		change      func(*specs.Spec)
	}{
		{"ociVersion", `got "invalid"`, "", func(s *specs.Spec) { s.Version = "invalid" }},
		{"ociVersion", `got "2.0.0"`, "", func(s *specs.Spec) { s.Version = "2.0.0" }},
		{"root.path", "expected a directory", "", func(s *specs.Spec) { s.Root = nil }},
		{"linux", "expected a Linux container", "", func(s *specs.Spec) { s.Linux = nil }},
		{"process", "expected a process", "", func(s *specs.Spec) { s.Process = nil }},
		{"process.args", "args must not be empty", "", func(s *specs.Spec) { s.Process.Args = nil }},
		{"process.cwd", "Cwd property must not be empty", "", func(s *specs.Spec) { s.Process.Cwd = "" }},
		{"process.cwd", "Cwd must be an absolute path", "", func(s *specs.Spec) { s.Process.Cwd = "tmp" }},
		{"process.oomScoreAdj", "expected -1000 to 1000, got 5000", "", func(s *specs.Spec) { s.Process.OOMScoreAdj = &loud }},
		{"process.rlimits[0].type", `got "NOFILE"`, "", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "NOFILE"}} }},
		{"process.rlimits[1].type", "duplicated", "", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}, {Type: "RLIMIT_CPU"}}
		}},
		{"process.scheduler.policy", `got "SCHED_X"`, "", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_X"} }},
		{"process.ioPriority.class", `got "X"`, "", func(s *specs.Spec) { s.Process.IOPriority = &specs.LinuxIOPriority{Class: "X"} }},
		{"linux.namespaces[0].type", `got "odd"`, "", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "odd" }},
		{"linux.namespaces[1].type", "duplicated ns", "", func(s *specs.Spec) { s.Linux.Namespaces[1].Type = specs.PIDNamespace }},
		{"linux.namespaces[1].path", `got "x"`, "", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "x" }},
		{"linux.uidMappings", "no uid mappings found", "", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = specs.UserNamespace }},
		{"linux.sysctl.net.x", "not allowed in host network namespace", "", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.x": "1"}
			namespace(s, specs.NetworkNamespace).Path = "/proc/self/ns/net"
		}},
		{"linux.uidMappings[0].size", "got 0", "", func(s *specs.Spec) { users(s, specs.LinuxIDMapping{}) }},
		{"linux.uidMappings[0].size", "got 4294967295 from 1 to 0", "", func(s *specs.Spec) { users(s, specs.LinuxIDMapping{ContainerID: 1, Size: noID}) }},
		{"linux.uidMappings[1]", "got 9 to 50 for 5", "", func(s *specs.Spec) {
			users(s, specs.LinuxIDMapping{Size: 10}, specs.LinuxIDMapping{ContainerID: 9, HostID: 50, Size: 5})
		}},
		{"linux.uidMappings[1]", "got 50 to 9 for 5", "", func(s *specs.Spec) {
			users(s, specs.LinuxIDMapping{Size: 10}, specs.LinuxIDMapping{ContainerID: 50, HostID: 9, Size: 5})
		}},
		{"process.user.uid", "cannot setuid to unmapped uid 10 in user namespace", "", func(s *specs.Spec) {
			users(s, specs.LinuxIDMapping{Size: 10})
			s.Process.User.UID = 10
		}},
		{"process.user.gid", "cannot setgid to unmapped gid 10 in user namespace", "", func(s *specs.Spec) {
			users(s, specs.LinuxIDMapping{Size: 10})
			s.Process.User.GID = 10
		}},
		{"process.user.additionalGids", "cannot set unmapped gid 10 in user namespace", "", func(s *specs.Spec) {
			users(s, specs.LinuxIDMapping{Size: 10})
			s.Process.User.AdditionalGids = []uint32{10}
		}},
		{"mounts[0].gidMappings[0].size", "got 0", "", func(s *specs.Spec) { s.Mounts[0].GIDMappings = []specs.LinuxIDMapping{{}} }},
		{"linux.devices[0].major", "expected 0 to 4095, got 4096", "", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Type: "c", Path: "/dev/x", Major: 4096}}
		}},
		{"linux.devices[0].minor", "got -1", "", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "b", Path: "/dev/x", Minor: -1}} }},
		{"linux.maskedPaths[0]", `got "/../"`, "", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/../"} }},
		{"process.scheduler.nice", "got 20", "", func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }},
		{"process.user.uid", "cannot setuid to unmapped uid 4294967295", "", func(s *specs.Spec) { s.Process.User.UID = noID }},
		{"process.user.gid", "cannot setgid to unmapped gid 4294967295", "", func(s *specs.Spec) { s.Process.User.GID = noID }},
		{"process.user.additionalGids", "4294967295", "", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{1, noID} }},
		{"process.env[1]", "invalid environment variable: missing '='", "", func(s *specs.Spec) { s.Process.Env = []string{"A=b", "B"} }},
		{"hostname", "private UTS namespace", "", func(s *specs.Spec) {
			s.Hostname, s.Linux.Namespaces = "x", s.Linux.Namespaces[4:]
		}},
		{"linux.sysctl.kernel.panic", "not in a separate kernel namespace", "", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} }},
		{"linux.sysctl.net.x", "not in a separate kernel namespace", "", func(s *specs.Spec) {
			s.Linux.Sysctl, s.Linux.Namespaces = map[string]string{"net.x": "1"}, s.Linux.Namespaces[4:]
		}},
		{"linux.sysctl.net/../kernel/panic", "got", "", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net/../kernel/panic": "1"}
		}},
		{"linux.devices[0].type", `got "x"`, "", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "x", Path: "/dev/x"}} }},
		{"linux.devices[0].path", `got "/"`, "", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Type: "c", Path: "/"}} }},
		{"linux.maskedPaths[0]", `got "x"`, "", func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"x"} }},
		{"linux.rootfsPropagation", `got "x"`, "", func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }},
		{"linux.personality.domain", `got "x"`, "", func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "x"} }},
		{"mounts[0].destination", "expected a path, got none", "", func(s *specs.Spec) { s.Mounts[0].Destination = "" }},
		{"hooks.poststop[0].path", `got "x"`, "", func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} }},
		{"hooks.poststop[0].timeout", "got 0", "", func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x", Timeout: &zero}}}
		}},
		{"linux.intelRdt.closID", `invalid intelRdt.ClosID "a/b"`, "", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "a/b"} }},
		{"linux.maskedPaths", "unable to restrict sys entries without a private MNT namespace", "", func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.ReadonlyPaths = s.Linux.Namespaces[:4], []string{"/proc/sys"}
		}},
		{"linux.rootfsPropagation", "without a private mount namespace", "", func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.RootfsPropagation = s.Linux.Namespaces[:4], "rshared"
		}},
		{"linux.netDevices", "without a private network namespace", "", func(s *specs.Spec) {
			s.Linux.Namespaces, s.Linux.NetDevices = s.Linux.Namespaces[2:], map[string]specs.LinuxNetDevice{"eth0": {}}
		}},
		{"linux.netDevices.eth0", `got "a/b"`, "", func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {Name: "a/b"}}
		}},
		{"linux.memoryPolicy.mode", `got "MPOL_X"`, "", func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_X"} }},
		{"linux.memoryPolicy.flags", `got "MPOL_F_X"`, "", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{"MPOL_F_X"}}
		}},
		{"linux.memoryPolicy.nodes", `got "3-1"`, "", func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "3-1"}
		}},
		{"process.scheduler.flags", `got ["SCHED_FLAG_X"]`, "", func(s *specs.Spec) {
			s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_X"}}
		}},
		{"process.ioPriority.priority", "got 8", "", func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}},
	} {
		spec := baseSpec()
		c.change(spec)
		err := validate(spec)
		if err == nil {
			err = checkMapped(spec, spec.Process)
		}
		code, subject := errdefs.CodeAndSubject(err)
		want := c.kind
		if want == "" {
			want = errdefs.InvalidArgument
		}
		if code != errdefs.SpecInvalid || subject != c.field || errdefs.KindOf(err) != want || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s %q: got %q, %v", c.field, c.text, subject, err)
		}
	}
}
