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

// crashEnv makes this test binary the process that dies, in this data root.
const crashEnv = "ENGINED_TEST_LAYER_CRASH"

// TestRegisterUntilKilled is the child of the next test: it registers layer
// after layer until it is killed.
func TestRegisterUntilKilled(t *testing.T) {
	root := os.Getenv(crashEnv)
	if root == "" {
		t.Skip("only as a child of TestAKilledUnpackLeavesWholeLayersOrNothing")
	}
	s := open(t, root, "")
	for i := range 10000 {
		content := strings.Repeat(string(rune('a'+i%26)), 300_000+i)
		s.mustRegister(t, "", file("d/f", content), file("d/g", content), file("h", ""))
	}
}

func TestAKilledUnpackLeavesWholeLayersOrNothing(t *testing.T) {
	needRoot(t)
	for range 4 {
		t.Run("at some moment", func(t *testing.T) {
			root := t.TempDir()
			killSomewhere(t, root)
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

// killSomewhere runs the child and kills it at some moment.
func killSomewhere(t *testing.T, root string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestRegisterUntilKilled$")
	child.Env = append(os.Environ(), crashEnv+"="+root)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(30+rand.IntN(100)) * time.Millisecond) // the moment is the test's input
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := child.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v", err)
	}
}
