package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/engined/engined/integration/bundle"
)

// TestDryRunPrintsThePlanAndMakesNothing.
func TestDryRunPrintsThePlanAndMakesNothing(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	ocirun.Root = filepath.Join(dir, "dry-root")
	id := filepath.Base(dir) + "-dry"
	here := filepath.Join(dir, id)
	must(t, bundle.Make(here, bundle.Docker(id)))
	out := callWithID(t, ocirun, here, id, []string{"create", "--dry-run", "ID"})
	if out.Status != 0 {
		t.Fatalf("%+v", out)
	}
	lines := strings.Split(strings.TrimSpace(out.Stdout), "\n")
	for at, want := range map[int]string{1: "proc ", len(lines) - 2: "seccomp ", len(lines) - 1: `exec "/bin/true"`} {
		if !strings.Contains(lines[at], want) {
			t.Errorf("line %d is %q, expected %q in it", at, lines[at], want)
		}
	}
	expected := []string{"mount ", "pivot", "await-start ", "/" + id}
	if !pureV2() { // there it is cloned into its cgroup
		expected = append(expected, id+`/tasks`)
	}
	for _, want := range expected {
		if !strings.Contains(out.Stdout, want) {
			t.Errorf("%q is not in the plan:\n%s", want, out.Stdout)
		}
	}
	if _, err := os.Lstat(ocirun.Root); !os.IsNotExist(err) {
		t.Errorf("the runtime's root: %v", err)
	}
	if found, err := filepath.Glob("/sys/fs/cgroup/*/" + id); err != nil || len(found) > 0 {
		t.Errorf("cgroups: %v, %v", found, err)
	}
	if out := callWithID(t, ocirun, here, id, []string{"state", "ID"}); out.Status == 0 {
		t.Errorf("there is a container: %+v", out)
	}
}
