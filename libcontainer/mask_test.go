package libcontainer

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNumberMask(t *testing.T) {
	for list, want := range map[string][]byte{
		"":         nil,
		"0":        {1, 0, 0, 0, 0, 0, 0, 0},
		"1-3, 8":   {0xe, 1, 0, 0, 0, 0, 0, 0},
		"64":       {0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0},
		"0-1,0-1":  {3, 0, 0, 0, 0, 0, 0, 0},
		"7-7,15-1": nil, "x": nil, "-1": nil, "1-": nil, ",": nil, "99999": nil,
	} {
		mask, err := numberMask("field", "CPUs", list)
		if !bytes.Equal(mask, want) || (err != nil) != (want == nil && list != "") {
			t.Errorf("%q: %v, %v", list, mask, err)
		}
	}
}

func TestExecHasItsCPUs(t *testing.T) {
	s := newSandbox(t)
	c := s.running()
	s.spec.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "0"}
	if r := s.exec("grep Cpus_allowed_list /proc/self/status"); !strings.HasSuffix(r.stdout, "\t0\n") {
		t.Errorf("got %+v", r)
	}
	s.must(c.killInit())
}
