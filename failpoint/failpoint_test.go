package failpoint_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func build(t *testing.T, tags string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", binary, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

func killed(t *testing.T, binary string, env ...string) bool {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func TestDiesAtTheNamedPassageAlone(t *testing.T) {
	binary := build(t, "failpoints")
	trace := filepath.Join(t.TempDir(), "trace")
	for setting, want := range map[string]string{
		"":         "first\nsecond\nfirst\nsecond\nfirst\nsecond\n",
		"third":    "first\nsecond\nfirst\nsecond\nfirst\nsecond\n",
		"first":    "first\n",
		"second:2": "first\nsecond\nfirst\nsecond\n",
	} {
		_ = os.Remove(trace)
		whole := "first\nsecond\nfirst\nsecond\nfirst\nsecond\n"
		if died := killed(t, binary, "ENGINED_FAILPOINT="+setting, "ENGINED_FAILPOINT_TRACE="+trace); died != (want != whole) {
			t.Errorf("%q: killed: %v", setting, died)
		}
		if said, err := os.ReadFile(trace); err != nil || string(said) != want {
			t.Errorf("%q: it passed %q, %v; want %q", setting, said, err, want)
		}
	}
}

func TestWithoutTheTagItDoesNothing(t *testing.T) {
	if killed(t, build(t, ""), "ENGINED_FAILPOINT=first") {
		t.Error("a binary built without the tag died")
	}
}

func TestStopsAndGoesOn(t *testing.T) {
	cmd := exec.Command(build(t, "failpoints"))
	cmd.Env = append(os.Environ(), "ENGINED_FAILPOINT=second:2", "ENGINED_FAILPOINT_STOPS=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Errorf("status %#x, %v; expected it to be stopped", int(status), err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
