package libcontainer

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

func TestValidateNamesTheField(t *testing.T) {
	zero := 0
	loud := 5000
	for _, c := range []struct {
		field, text string
		kind        errdefs.Kind
		change      func(*specs.Spec)
	}{
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
		{"linux.uidMappings", "USER namespace isn't enabled", "", func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} }},
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
		{"linux.intelRdt", "not implemented", errdefs.NotImplemented, func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} }},
		{"linux.netDevices", "not implemented", errdefs.NotImplemented, func(s *specs.Spec) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}
		}},
		{"linux.mountLabel", "selinux is disabled", errdefs.FailedPrecondition, func(s *specs.Spec) { s.Linux.MountLabel = "x" }},
		{"linux.namespaces", "not implemented", errdefs.NotImplemented, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:4] }},
	} {
		spec := baseSpec()
		c.change(spec)
		err := validate(spec)
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
