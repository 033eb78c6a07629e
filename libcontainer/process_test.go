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
