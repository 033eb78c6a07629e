package libcontainer

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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

// The runtime may be bound to fewer CPUs than the container is to have.
func TestProcessesHaveEveryCPU(t *testing.T) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil || before.Count() < 2 {
		t.Skipf("needs two CPUs: %v", err)
	}
	s := newSandbox(t)
	look := "grep Cpus_allowed_list /proc/self/status"
	every := s.sh(look)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	var one unix.CPUSet
	one.Set(0)
	s.must(unix.SchedSetaffinity(0, &one))
	s.want(look, every)
	c := s.running()
	if r := s.exec(look); strings.TrimSpace(r.stdout) != every {
		t.Errorf("exec: %+v, want %q", r, every)
	}
	s.must(c.killInit())
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
