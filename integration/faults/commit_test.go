package faults

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// TestACommitThatDiesLeavesNothingPaused kills engined at every point of a commit
// that passes while the container stands still. The next engined lets it go on,
// and one that its user has paused stays so.
func TestACommitThatDiesLeavesNothingPaused(t *testing.T) {
	cli := harness.AnyCLI(t)
	harness.NeedRoot(t)
	t.Setenv("ENGINED_BIN", binariesWithFailPoints(t))
	stack := harness.New(t, harness.Options{})
	cli = cli.At(t, stack.Host())
	for _, name := range []string{"busy", "paused"} {
		cli.Must(t, "run", "-d", "--name", name, harness.Image, "sh", "-c", "echo new >/new; while :; do sleep 1000; done")
	}
	cli.Must(t, "pause", "paused")
	trace := filepath.Join(t.TempDir(), "trace")
	restart := func(settings map[string]string) {
		t.Helper()
		if err := stack.Engined.Stop(); err != nil {
			t.Fatal(err)
		}
		for name, value := range settings {
			t.Setenv(name, value)
		}
		stack.StartEngined()
		for name := range settings {
			_ = os.Unsetenv(name)
		}
	}
	restart(map[string]string{"ENGINED_FAILPOINT_TRACE": trace})
	_ = os.Remove(trace) // of the start
	cli.Must(t, "commit", "busy", "whole:1")
	said, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := slices.Compact(strings.Fields(string(said)))
	first, last := slices.Index(points, "commit-noted"), slices.Index(points, "image-synced")
	if first < 0 || last < first || !slices.Contains(points, "commit-paused") {
		t.Fatalf("a commit passes %v", points)
	}
	for _, point := range points[first : last+1] {
		t.Run(point, func(t *testing.T) {
			restart(map[string]string{"ENGINED_FAILPOINT": point})
			cli.Run(t, "commit", "busy", "half:1")
			if !stack.Engined.Died(patient) {
				t.Fatal("engined lives on")
			}
			stack.StartEngined()
			if states := cli.Must(t, "inspect", "-f", "{{.Name}} {{.State.Status}}", "busy", "paused"); states != "/busy running\n/paused paused\n" {
				t.Errorf("they are\n%s", states)
			}
			if out := cli.Must(t, "exec", "busy", "cat", "/new"); out != "new\n" {
				t.Errorf("in the one that was committed: %q", out)
			}
			cli.Must(t, "commit", "busy", "half:1")
		})
	}
	cli.Must(t, "unpause", "paused")
	cli.Must(t, "exec", "paused", "true")
	cli.Must(t, "rm", "-f", "busy", "paused")
}
