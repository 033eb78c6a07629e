package libcontainer

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The capabilities that `runc spec` wrote up to 1.1: ambient, not inheritable.
func TestAmbientCapabilitiesThatCannotBeRaisedAreLeftOut(t *testing.T) {
	s := newSandbox(t)
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	s.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Ambient: caps}
	r := s.run("grep", "Cap", "/proc/self/status")
	if got := strings.Join(strings.Fields(r.stdout), " "); got != "CapInh: 0000000000000000 CapPrm: 0000000020000420 CapEff: 0000000020000420 CapBnd: 0000000020000420 CapAmb: 0000000000000000" {
		t.Errorf("got %+v", r)
	}
	if r.stderr != "" {
		t.Errorf("it says: %s", r.stderr)
	}
}

func TestUserGroupsAndCapabilities(t *testing.T) {
	s := newSandbox(t)
	umask := uint32(0o027)
	s.spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}, Umask: &umask}
	s.spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL", "CAP_NET_RAW"}, Permitted: []string{"CAP_KILL", "CAP_NET_RAW"},
		Effective: []string{"CAP_KILL"}, Inheritable: []string{"CAP_NET_RAW"}, Ambient: []string{"CAP_NET_RAW"},
	}
	s.spec.Process.NoNewPrivileges = true
	out := s.sh(`id -u; id -g; id -G; umask; echo $HOME; grep -E "Cap|NoNewPrivs" /proc/self/status; touch /dev/stdout && echo mine`)
	want := "1000\n1001\n1001 5 6\n0027\n/home/user\n" +
		"CapInh:\t0000000000002000\nCapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t0000000000002020\nCapAmb:\t0000000000002000\nNoNewPrivs:\t1\nmine"
	if out != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
}
