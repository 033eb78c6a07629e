package resctrl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
)

// kernel imitates what resctrl does: a new group has files. It makes them
// beforehand, because a plain directory does not make them by itself.
func kernel(t *testing.T, groups ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, group := range append(groups, "") {
		dir := filepath.Join(root, group)
		if err := os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "schemata"), []byte("    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAGroupOfOthersIsCompared(t *testing.T) {
	root := kernel(t, "gold")
	for schema, fits := range map[string]bool{
		"":               true,
		"L3:0=7ff;1=7ff": true,
		"L3:1=07FF":      true,
		"L3:0=f":         false,
		"L3:2=7ff":       false,
	} {
		g, err := makeBelow(root, &specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: schema}, "c")
		if fits != (err == nil) || !fits && errdefs.KindOf(err) != errdefs.FailedPrecondition {
			t.Errorf("%q: %v", schema, err)
		}
		if err == nil && (g.Own || g.Dir != filepath.Join(root, "gold")) {
			t.Errorf("%q: %+v", schema, g)
		}
	}
}

func TestAGroupThatWasThereIsWrittenAndStays(t *testing.T) {
	root := kernel(t, "c")
	g, err := makeBelow(root, &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=50", Schemata: []string{"L2:0=1"}, EnableMonitoring: true}, "c")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "c/schemata"))
	if err != nil || !strings.HasPrefix(string(text), "L2:0=1\n") { // the last write, at the file's begin as in the kernel
		t.Errorf("%q, %v", text, err)
	}
	want := []string{filepath.Join(root, "c/tasks"), filepath.Join(root, "c/mon_groups/c/tasks")}
	if files := g.TaskFiles(); !slices.Equal(files, want) {
		t.Errorf("tasks files %q, want %q", files, want)
	}
	for range 2 { // again is fine
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	for group, there := range map[string]bool{"c": true, "c/mon_groups/c": false} {
		if _, err := os.Stat(filepath.Join(root, group)); (err == nil) != there {
			t.Errorf("%s: %v", group, err)
		}
	}
}

func TestAGroupThatWasMadeIsRemoved(t *testing.T) {
	root := kernel(t)
	g, err := makeBelow(root, &specs.LinuxIntelRdt{}, "c")
	if err != nil || g.Dir != filepath.Join(root, "c") {
		t.Fatalf("%+v %v", g, err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(g.Dir); !os.IsNotExist(err) {
		t.Errorf("the group is still there: %v", err)
	}
}

func TestSchemataAreChanged(t *testing.T) {
	root := kernel(t, "c")
	g := Group{Dir: filepath.Join(root, "c")}
	if err := g.Change(&specs.LinuxIntelRdt{L3CacheSchema: "L3:0=3"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(g.Dir, "schemata"))
	if err != nil || !strings.HasPrefix(string(text), "L3:0=3\n") {
		t.Errorf("%q, %v", text, err)
	}
	if err := g.Change(&specs.LinuxIntelRdt{MemBwSchema: "L3:0=3"}); errdefs.CodeOf(err) != errdefs.SpecInvalid {
		t.Errorf("%v", err)
	}
}

func TestAFailureLeavesNoGroup(t *testing.T) {
	root := kernel(t)
	// A plain directory has no schemata to write to, as a kernel without CAT.
	if _, err := makeBelow(root, &specs.LinuxIntelRdt{ClosID: "new", L3CacheSchema: "L3:0=f"}, "c"); err == nil {
		t.Error("writing to no file succeeded")
	}
	if _, err := makeBelow(root, &specs.LinuxIntelRdt{ClosID: "absent"}, "c"); errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("a clos that is not there, and no schemata: %v", err)
	}
	for _, group := range []string{"new", "absent"} {
		if _, err := os.Stat(filepath.Join(root, group)); !os.IsNotExist(err) {
			t.Errorf("%s is there: %v", group, err)
		}
	}
	if g, err := makeBelow(root, &specs.LinuxIntelRdt{ClosID: "/"}, "c"); err != nil || g.Own || g.Dir != root {
		t.Errorf("the default group: %+v %v", g, err)
	}
}

func TestFieldsAreChecked(t *testing.T) {
	for field, rdt := range map[string]specs.LinuxIntelRdt{
		"closID": {ClosID: "../x"}, "l3CacheSchema": {L3CacheSchema: "L3:0=f\nMB:0=1"},
		"memBwSchema": {MemBwSchema: "L3:0=1"}, "schemata[1]": {Schemata: []string{"L3:0=f", "a\nb"}},
	} {
		if err := Check(&rdt); err == nil || !strings.Contains(err.Error(), "linux.intelRdt."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestMountIsFound(t *testing.T) {
	text := "22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw\n40 22 0:35 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw,cdp\n"
	if path := find(text); path != "/sys/fs/resctrl" {
		t.Errorf("got %q", path)
	}
	if path := find("22 1 0:20 / /resctrl rw - sysfs resctrl rw\n"); path != "" {
		t.Errorf("got %q", path)
	}
}
