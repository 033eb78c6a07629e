package main

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCapabilitiesOfExec(t *testing.T) {
	none, one, two := []string(nil), []string{"CAP_KILL"}, []string{"CAP_KILL", "CAP_CHOWN"}
	for _, c := range []struct{ had, want *specs.LinuxCapabilities }{
		{nil, &specs.LinuxCapabilities{Bounding: two[1:], Effective: two[1:], Permitted: two[1:]}},
		{&specs.LinuxCapabilities{Bounding: one, Ambient: one}, &specs.LinuxCapabilities{Bounding: two, Effective: two[1:], Permitted: two[1:], Ambient: one}},
		{&specs.LinuxCapabilities{Inheritable: one, Ambient: none}, &specs.LinuxCapabilities{Bounding: two[1:], Effective: two[1:], Permitted: two[1:], Inheritable: one, Ambient: two[1:]}},
	} {
		p := &specs.Process{Capabilities: c.had}
		addCapabilities(p, []string{"CAP_CHOWN"})
		if !reflect.DeepEqual(p.Capabilities, c.want) {
			t.Errorf("got %+v, want %+v", p.Capabilities, c.want)
		}
	}
}

// A process of --process has of the container's what it does not say itself.
func TestProcessInherits(t *testing.T) {
	umask, adjust := uint32(0o77), 55
	from := &specs.Process{
		Args: []string{"sh"}, Env: []string{"A=b"}, Cwd: "/x", NoNewPrivileges: true, Terminal: true,
		User: specs.User{UID: 5, Umask: &umask}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
		OOMScoreAdj: &adjust, ApparmorProfile: "a", SelinuxLabel: "b", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CPU"}},
		Scheduler: &specs.Scheduler{Nice: 3}, IOPriority: &specs.LinuxIOPriority{Priority: 4}, ExecCPUAffinity: &specs.CPUAffinity{Final: "0"},
	}
	got, want := &specs.Process{Args: []string{"id"}, Cwd: "/"}, *from
	want.Args, want.Cwd, want.Env, want.NoNewPrivileges, want.Terminal, want.User.UID = got.Args, got.Cwd, nil, false, false, 0
	inherit(got, from)
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	own := specs.Process{Capabilities: &specs.LinuxCapabilities{}, ApparmorProfile: "own", Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_AS"}}}
	got = &specs.Process{Capabilities: own.Capabilities, ApparmorProfile: own.ApparmorProfile, Rlimits: own.Rlimits}
	inherit(got, from)
	if got.Capabilities != own.Capabilities || got.ApparmorProfile != "own" || got.Rlimits[0].Type != "RLIMIT_AS" {
		t.Errorf("what it says itself: got %+v", got)
	}
}
