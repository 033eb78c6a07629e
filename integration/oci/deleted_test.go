package oci

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/bundle"
)

// TestDeletedWhileItIsMade stops `run` between any two of its steps, has the container
// deleted by force, and lets it go on. The deletion works, and `run` either fails and
// leaves nothing, or has made a container that is there to be deleted.
func TestDeletedWhileItIsMade(t *testing.T) {
	binary, dir := faultRuntime(t)
	family := adopt(t)
	f := &faulty{t: t, family: family, dir: filepath.Join(dir, "bundle"), id: filepath.Base(dir),
		scenario: scenario{call: []string{"run", "--detach", "--pid-file", "pid", "ID"}, args: sleeps},
		runtime:  bundle.Runtime{Name: "ocirun", Path: binary, Root: filepath.Join(dir, "root"), Run: family.run}}
	f.write(bundle.Docker(f.id))
	failed := 0
	for _, point := range f.trace() {
		if strings.Contains(point, "-at-") || strings.HasPrefix(point, "filter-") { // the stage goes on; passed once
			continue
		}
		if f.deleteAt(point) {
			failed++
		}
	}
	if failed < 5 {
		t.Errorf("run failed %d times, expected a container that is deleted in its making to be missed more often", failed)
	}
}

// deleteAt reports whether the call failed.
func (f *faulty) deleteAt(point string) (failed bool) {
	f.t.Helper()
	said, err := os.Create(filepath.Join(f.dir, "said"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer said.Close()
	args := append(f.scenario.call[:len(f.scenario.call)-1:len(f.scenario.call)-1], f.id)
	cmd := f.runtime.Command(f.t.Context(), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.dir, said, said
	cmd.Env = append(os.Environ(), "ENGINED_FAILPOINT="+point, "ENGINED_FAILPOINT_STOPS=1")
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	const stopped = 5 // CLD_STOPPED, waitid(2)
	var info unix.Siginfo
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
	}
	if err != nil || info.Code != stopped {
		f.t.Fatalf("%s: not stopped there: %v", point, err)
	}
	f.must("delete", "--force", "ID")
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		f.t.Fatal(err)
	}
	if failed = exit != nil; failed {
		f.wantNothingLeft(point + ", by its own unwinding")
	}
	f.reuse()
	if f.t.Failed() {
		text, _ := os.ReadFile(said.Name())
		f.t.Fatalf("that was %s: %v: %s", point, exit, text)
	}
	return failed
}
