package supervisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/shim"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// spare waits for a shim that waits for a container, and returns its pid.
func (s *stack) spare(t *testing.T) (pid int) {
	t.Helper()
	s.settles(t, func() error {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			args := arguments(path)
			if len(args) > 2 && args[1] == shim.SpareCommand && args[2] == s.stateDir() {
				pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return nil
			}
		}
		return fmt.Errorf("no shim is kept ready")
	})
	return pid
}

func arguments(path string) []string {
	line, _ := os.ReadFile(path)
	return strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
}

// enough is how many containers a test starts until one gets the spare shim: one
// that has just been started is not always offered yet.
const enough = 50

// TestSpareShimIsTakenForTheNextContainer: and is then like any other.
func TestSpareShimIsTakenForTheNextContainer(t *testing.T) {
	t.Parallel()
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("first", "exec sleep 1000")
		id, ahead, taker := "", 0, &api.Container{}
		for i := 0; i < enough && (i == 0 || int(taker.ShimPid) != ahead); i++ {
			id, ahead = fmt.Sprintf("c%d", i), s.spare(t)
			taker = s.run(id, "exit 5")
		}
		if int(taker.ShimPid) != ahead {
			t.Fatalf("the shim is process %d, expected %d, which was ready", taker.ShimPid, ahead)
		}
		if exit := s.wait(id, ""); exit.Status != 5 {
			t.Errorf("exit %v", exit)
		}
		if !s.fake {
			want := []string{filepath.Join(s.bin, "shim"), id, taker.BundlePath, s.runtime}
			if got := arguments(fmt.Sprintf("/proc/%d/cmdline", ahead)); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("its command line is %q, expected %q", got, want)
			}
			log, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", ahead))
			if want := filepath.Join(s.stateDir(), id, shim.LogFile); log != want {
				t.Errorf("it writes its errors to %s, expected %s", log, want)
			}
		}
		s.end(unix.SIGKILL)
		s.start()
		if got := s.state(id).ShimPid; int(got) != ahead {
			t.Errorf("after a restart the shim is process %d, expected %d", got, ahead)
		}
		s.delete(id, false)
		gone(t, ahead)
	})
}

// runUntilGone starts containers, which all must run, until a shim that dies when
// it is to take one is gone, and reaped.
func (s *stack) runUntilGone(t *testing.T, ahead int) {
	t.Helper()
	for i := range enough {
		id := fmt.Sprintf("c%d", i)
		if c := s.run(id, "exit 6"); int(c.ShimPid) == ahead {
			t.Errorf("the shim is process %d, which was to die", ahead)
		}
		if exit := s.wait(id, ""); exit.Status != 6 {
			t.Errorf("exit %v", exit)
		}
		if unix.Kill(ahead, 0) != nil {
			return
		}
	}
	t.Errorf("process %d is still there after %d containers", ahead, enough)
}

// TestSpareShimThatDiedIsReplaced: nobody notices.
func TestSpareShimThatDiedIsReplaced(t *testing.T) {
	t.Parallel()
	withEachShim(t, func(t *testing.T, s *stack) {
		s.run("first", "exec sleep 1000")
		ahead := s.spare(t)
		if err := unix.Kill(ahead, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.runUntilGone(t, ahead)
		if next := s.spare(t); next == ahead {
			t.Errorf("it is still process %d", next)
		}
	})
}

// TestSpareShimDiesWithItsContainerInHand: it has the container's descriptors, and
// has said nothing yet.
func TestSpareShimDiesWithItsContainerInHand(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	dying := filepath.Join(s.dir, "dying-shim")
	compile := exec.Command("go", "build", "-buildvcs=false", "-tags", "failpoints", "-o", dying, "../cmd/shim")
	if said, err := compile.CombinedOutput(); err != nil {
		t.Skipf("no shim with fail points: %v: %s", err, said)
	}
	script := filepath.Join(s.dir, "script")
	text := "#!/bin/sh\ntest \"$1\" != " + shim.SpareCommand + " || export ENGINED_FAILPOINT=shim-adopted\nexec " + dying + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s.restart("--shim", script)
	s.run("first", "exec sleep 1000")
	ahead := s.spare(t)
	s.runUntilGone(t, ahead)
}

// TestSpareShimEndsWithTheSupervisor: however that ends.
func TestSpareShimEndsWithTheSupervisor(t *testing.T) {
	t.Parallel()
	withEachShim(t, func(t *testing.T, s *stack) {
		for i, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
			s.run(fmt.Sprintf("c%d", i), "exec sleep 1000")
			ahead := s.spare(t)
			s.end(signal)
			gone(t, ahead)
			s.start()
		}
	})
}
