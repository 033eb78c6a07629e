package oci

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

// TestRunsOnOneProcessor: the Go scheduler, asked what it has to run on, says
// one processor, or as many as the caller asked for.
func TestRunsOnOneProcessor(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	bare := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GOMAXPROCS=") })
	for name, env := range map[string][]string{"gomaxprocs=1": {}, "gomaxprocs=3": {"GOMAXPROCS=3"}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(dir, name)
			id := filepath.Base(filepath.Dir(filepath.Dir(dir))) + "-" + strings.ReplaceAll(name, "=", "")
			spec := bundle.Plain(id)
			spec.Process.Args = []string{"/bin/cat"}
			if err := bundle.Make(dir, spec); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = ocirun.Call(dir, "delete", "--force", id) })
			cmd := ocirun.Command(t.Context(), "run", "--bundle", dir, id)
			cmd.Env = append(append(slices.Clone(bare), env...), "GODEBUG=schedtrace=1")
			input, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			trace, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(trace)
			if !lines.Scan() || !strings.Contains(lines.Text(), " "+name+" ") {
				t.Errorf("the scheduler's first line: %q, want %s in it", lines.Text(), name)
			}
			_ = input.Close()
			for lines.Scan() { // until it ends
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
