package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
)

func deadline() time.Time { return time.Now().Add(bundle.Patience(10 * time.Second)) }

// TestVerbs walks through a container's life under every runtime. Each step's
// status, and where the specification fixes it its output, is that of one of
// the references.
func TestVerbs(t *testing.T) {
	ocirun, references, dir := runtimes(t)
	allowed := map[string][]took{}
	for _, reference := range references {
		for i, step := range walk(t, reference, filepath.Join(dir, reference.Name)) {
			key := fmt.Sprint(i, " ", step.step)
			allowed[key] = append(allowed[key], step)
		}
	}
	for i, step := range walk(t, ocirun, filepath.Join(dir, "ocirun")) {
		if theirs := allowed[fmt.Sprint(i, " ", step.step)]; !slices.Contains(theirs, step) {
			t.Errorf("step %d: ocirun %+v, references %+v", i, step, theirs)
		}
	}
}

// took is what a step showed.
type took struct {
	step   string
	status int
	shows  string
}

func walk(t *testing.T, runtime bundle.Runtime, dir string) []took {
	t.Helper()
	id := filepath.Base(filepath.Dir(dir)) + "-" + runtime.Name // the directory's name is new each time
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	spec.Annotations = map[string]string{"org.example.note": "kept"}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = runtime.Call(dir, "delete", "--force", id) })
	var steps []took
	last := ""
	call := func(args ...string) string {
		t.Helper()
		out, err := callDetached(runtime, dir, args...)
		if err != nil {
			t.Fatalf("%s %v: %v", runtime.Name, args, err)
		}
		last = out.Stdout
		steps = append(steps, took{step: strings.ReplaceAll(strings.Join(args, " "), id, "ID"), status: out.Status})
		return out.Stdout
	}
	state := func() {
		t.Helper()
		said, before := last, steps[len(steps)-1].step
		text := call("state", id)
		if steps[len(steps)-1].status != 0 {
			t.Fatalf("%s: no state after %s (%q): %s", runtime.Name, before, said, text)
		}
		steps[len(steps)-1].shows = stateOf(t, text, id, dir)
	}
	call("state", id) // none yet
	call("create", "--pid-file", "pid", id)
	state()
	call("create", id) // the name is taken
	call("exec", id, "true")
	call("start", id)
	state()
	call("start", id) // a second time
	steps[len(steps)-1].shows = call("exec", id, "cat", "/proc/1/comm")
	call("exec", "--cwd", "/tmp", "--env", "A=b", "--user", "3:4", id, "sh", "-c", `test "$(pwd) $A $(id -u) $(id -g)" = "/tmp b 3 4"`)
	call("exec", id, "sh", "-c", "exit 8")
	call("pause", id)
	state()
	call("resume", id)
	call("delete", id) // it runs
	call("kill", id, "KILL")
	awaitStopped(t, runtime, dir, id)
	state()
	call("kill", id, "KILL") // it has stopped
	call("delete", id)
	call("delete", id) // it is gone
	call("delete", "--force", id)
	call("list", "-q")
	return steps
}

// TestDeleteOfACreatedContainer holds ocirun to runc where crun wants force:
// containerd deletes its created tasks without.
func TestDeleteOfACreatedContainer(t *testing.T) {
	ocirun, references, dir := runtimes(t)
	for _, runtime := range append(references, ocirun) {
		if runtime.Name == "crun" {
			continue
		}
		id := filepath.Base(dir) + "-" + runtime.Name
		bundleDir := filepath.Join(dir, runtime.Name)
		spec := bundle.Plain(id)
		spec.Process.Args = []string{"/bin/sleep", "1000"}
		if err := bundle.Make(bundleDir, spec); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = runtime.Call(bundleDir, "delete", "--force", id) })
		for _, step := range []struct {
			verb string
			want int
		}{{"create", 0}, {"delete", 0}, {"state", 1}, {"delete", 1}} {
			out, err := callDetached(runtime, bundleDir, step.verb, id)
			if err != nil || out.Status != step.want {
				t.Errorf("%s %s: status %d, want %d: %v %s", runtime.Name, step.verb, out.Status, step.want, err, out.Stdout)
			}
		}
	}
}

// stateOf checks what differs between runtimes and returns the rest.
func stateOf(t *testing.T, text, id, dir string) string {
	t.Helper()
	var state specs.State
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		t.Fatalf("state of %s: %v: %s", id, err, text)
	}
	if state.ID != id || state.Bundle != dir {
		t.Errorf("state of %s in %s says %s in %s", id, dir, state.ID, state.Bundle)
	}
	if alive := state.Status != specs.StateStopped; alive != (state.Pid > 0) {
		t.Errorf("%s: pid %d while %s", id, state.Pid, state.Status)
	}
	return string(state.Status) + " " + state.Annotations["org.example.note"]
}

// awaitStopped waits for the kernel to have ended the container's process.
func awaitStopped(t *testing.T, runtime bundle.Runtime, dir, id string) {
	t.Helper()
	for end := deadline(); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		out, err := runtime.Call(dir, "state", id)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.Stdout, `"stopped"`) {
			return
		}
	}
	t.Fatalf("%s: %s does not stop", runtime.Name, id)
}

// callDetached calls the runtime with files for its output: a container that
// goes on holds them, and a pipe would never end.
func callDetached(runtime bundle.Runtime, dir string, args ...string) (bundle.Output, error) {
	stdout := filepath.Join(dir, "stdout")
	file, err := os.Create(stdout)
	if err != nil {
		return bundle.Output{}, err
	}
	defer file.Close()
	out, err := runtime.CallInto(file, dir, args...)
	if err != nil {
		return out, err
	}
	text, err := os.ReadFile(stdout)
	out.Stdout = string(text)
	return out, err
}
