package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/shim"
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

// TestSpareShimIsTakenForTheNextContainer: and is then like any other.
func TestSpareShimIsTakenForTheNextContainer(t *testing.T) {
	t.Parallel()
	withEachShim(t, func(t *testing.T, s *stack) {
		first := s.run("first", "exec sleep 1000")
		ahead := s.spare(t)
		if ahead == int(first.ShimPid) {
			t.Fatalf("the first container's shim is also kept ready")
		}
		second := s.run("second", "exit 5")
		if int(second.ShimPid) != ahead {
			t.Errorf("the shim is process %d, expected %d, which was ready", second.ShimPid, ahead)
		}
		if exit := s.wait("second", ""); exit.Status != 5 {
			t.Errorf("exit %v", exit)
		}
		if !s.fake {
			want := []string{filepath.Join(s.bin, "shim"), "second", second.BundlePath, s.runtime}
			if got := arguments(fmt.Sprintf("/proc/%d/cmdline", ahead)); strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("its command line is %q, expected %q", got, want)
			}
			log, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", ahead))
			if want := filepath.Join(s.stateDir(), "second", shim.LogFile); log != want {
				t.Errorf("it writes its errors to %s, expected %s", log, want)
			}
		}
		s.end(unix.SIGKILL)
		s.start()
		if got := s.state("second").ShimPid; int(got) != ahead {
			t.Errorf("after a restart the shim is process %d, expected %d", got, ahead)
		}
		s.delete("second", false)
		gone(t, ahead)
	})
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
		s.run("second", "exec sleep 1000")
		gone(t, ahead) // reaped, too
		if next := s.spare(t); next == ahead {
			t.Errorf("it is still process %d", next)
		}
	})
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
