package layer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crashEnv makes this test binary the process that dies: "<data root> <point>".
const crashEnv = "ENGINED_TEST_LAYER_CRASH"

// TestRegisterUntilKilled is the child of the next test: it registers layer
// after layer and dies at its point, if it has one.
func TestRegisterUntilKilled(t *testing.T) {
	root, point, is := strings.Cut(os.Getenv(crashEnv), " ")
	if !is {
		t.Skip("only as a child of TestAKilledUnpackLeavesWholeLayersOrNothing")
	}
	failpoint = func(name string) {
		if name == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s := open(t, root, "")
	for i := range 10000 {
		content := strings.Repeat(string(rune('a'+i%26)), 300_000+i)
		s.mustRegister(t, "", file("d/f", content), file("d/g", content), file("h", ""))
	}
}

func TestAKilledUnpackLeavesWholeLayersOrNothing(t *testing.T) {
	needRoot(t)
	points := []string{"layer-staged", "layer-unpacked", "layer-renamed", "", "", "", ""}
	for _, point := range points {
		t.Run("at "+point, func(t *testing.T) {
			root := t.TempDir()
			killAt(t, root, point)
			s := open(t, root, "overlay2")
			all, err := s.All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			onlyLayers(t, s, len(all))
			for _, l := range all {
				var back bytes.Buffer
				if err := s.WriteTar(t.Context(), l.Chain, &back); err != nil || l.Damaged != "" {
					t.Errorf("layer %s: %v, damaged %q", l.Chain, err, l.Damaged)
				}
			}
		})
	}
}

// killAt runs the child until it kills itself at point or, without one, kills
// it at some moment.
func killAt(t *testing.T, root, point string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestRegisterUntilKilled$")
	child.Env = append(os.Environ(), crashEnv+"="+root+" "+point)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if point == "" {
		time.Sleep(time.Duration(30+rand.IntN(100)) * time.Millisecond) // the moment is the test's input
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
}
