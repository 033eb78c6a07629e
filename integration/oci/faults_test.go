package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

// fullFaults has every way of dying tried at every operation of the stage, not
// one of three.
const fullFaults = "OCI_TEST_FULL"

// faultMark is in the environment of every process of the containers.
const faultMark = "ENGINED_FAULT_OF="

// scenario is one call that is killed at each of its fail points.
type scenario struct {
	name   string
	before [][]string // calls that make what it needs
	half   string     // before: a create that is killed at this point
	call   []string
	args   []string // of the container's process
	sparse bool     // much as another one: a few operations of the stage will do
}

var (
	sleeps = []string{"/bin/sleep", "1000"}

	scenarios = []scenario{
		{name: "create", call: []string{"create", "--pid-file", "pid", "ID"}, args: sleeps},
		{name: "run-detached", call: []string{"run", "--detach", "--pid-file", "pid", "ID"}, args: sleeps, sparse: true},
		{name: "run", call: []string{"run", "ID"}, args: []string{"/bin/true"}, sparse: true},
		{name: "start", before: [][]string{{"create", "ID"}}, call: []string{"start", "ID"}, args: sleeps},
		{name: "exec", before: [][]string{{"run", "-d", "ID"}}, call: []string{"exec", "ID", "true"}, args: sleeps, sparse: true},
		{name: "exec-detached", before: [][]string{{"run", "-d", "ID"}}, call: []string{"exec", "-d", "--pid-file", "pid", "ID", "sleep", "1000"}, args: sleeps, sparse: true},
		{name: "delete", before: [][]string{{"create", "ID"}}, call: []string{"delete", "ID"}, args: sleeps},
		{name: "delete-force", before: [][]string{{"run", "-d", "ID"}}, call: []string{"delete", "--force", "ID"}, args: sleeps},
		{name: "delete-half", half: "launch-cgroup-set", call: []string{"delete", "--force", "ID"}, args: sleeps},
	}
)

// faultBundles are specs that lead through different steps.
func faultBundles(id string) map[string]*specs.Spec {
	docker, namespaces := bundle.Docker(id), bundle.Plain(id)
	hook := []specs.Hook{{Path: "/bin/true"}}
	docker.Hooks = &specs.Hooks{Prestart: hook, CreateRuntime: hook, CreateContainer: hook, StartContainer: hook, Poststart: hook, Poststop: hook} //nolint:staticcheck // deprecated, still in use
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}
	namespaces.Linux.UIDMappings, namespaces.Linux.GIDMappings = ids, ids
	namespaces.Linux.Namespaces = append(namespaces.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace},
		specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
	namespaces.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 100}}
	return map[string]*specs.Spec{"docker": docker, "namespaces": namespaces}
}

// TestKilledAtAnyPoint kills the runtime, the stage of the container's process,
// and both, at every fail point of every verb. Whatever was half-made, `delete
// --force` removes all of it, and the name can be used again.
func TestKilledAtAnyPoint(t *testing.T) {
	binary, dir := faultRuntime(t)
	family := adopt(t)
	for name, spec := range faultBundles(filepath.Base(dir)) {
		for _, s := range scenarios {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				f := &faulty{t: t, family: family, dir: filepath.Join(dir, name+"-"+s.name), id: filepath.Base(dir), scenario: s,
					runtime: bundle.Runtime{Name: "ocirun", Path: binary, Root: filepath.Join(dir, "root"), Run: family.run}}
				f.write(spec)
				points := f.trace()
				t.Logf("%d points", len(points))
				for _, point := range points {
					f.die(point)
				}
				f.wantNothingLeft("all")
			})
		}
	}
}

// faultRuntime returns an ocirun with fail points, made for this test unless
// one lies beside the others, and a directory.
func faultRuntime(t *testing.T) (binary, dir string) {
	t.Helper()
	harness.NeedRoot(t)
	dir = harness.TempDir(t)
	if binary = harness.Binary("ocirun-failpoints"); harness.Executable(binary) {
		return binary, dir
	}
	binary = filepath.Join(dir, "ocirun")
	for _, tool := range []string{"go", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs the Go toolchain to build ocirun with fail points, or bin/ocirun-failpoints: ", err)
		}
	}
	build := exec.Command("make", "-s", "failpoints", "OUT="+binary)
	build.Dir = harness.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary, dir
}

// faulty is one scenario at work.
type faulty struct {
	t        *testing.T
	family   family
	scenario scenario
	runtime  bundle.Runtime
	dir, id  string
}

func (f *faulty) write(spec *specs.Spec) {
	f.t.Helper()
	spec.Process.Args = f.scenario.args
	spec.Process.Env = append(slices.Clip(spec.Process.Env), faultMark+f.id)
	if err := bundle.Make(f.dir, spec); err != nil {
		f.t.Fatal(err)
	}
}

// outcome of a call: its wait status, what it said, and the points it passed.
type outcome struct {
	status syscall.WaitStatus
	said   string
	passed []string
}

func (o outcome) killed() bool { return o.status.Signaled() && o.status.Signal() == syscall.SIGKILL }

// call has the runtime do something, to die at a point if that is not empty.
func (f *faulty) call(point string, args ...string) outcome {
	f.t.Helper()
	trace, said := filepath.Join(f.dir, "trace"), filepath.Join(f.dir, "said")
	if err := os.Remove(trace); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.t.Fatal(err)
	}
	file, err := os.Create(said)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(context.Background(), bundle.Patience(30*time.Second))
	defer cancel()
	args = slices.Clone(args)
	if i := slices.Index(args, "ID"); i >= 0 {
		args[i] = f.id
	}
	cmd := f.runtime.Command(ctx, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.dir, file, file
	cmd.Env = append(os.Environ(), "ENGINED_FAILPOINT="+point, "ENGINED_FAILPOINT_TRACE="+trace)
	err = f.runtime.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		f.t.Fatalf("%s at %q: %v", args, point, err)
	}
	text, _ := os.ReadFile(said)
	passed, _ := os.ReadFile(trace)
	return outcome{cmd.ProcessState.Sys().(syscall.WaitStatus), string(text), strings.Fields(string(passed))}
}

// must is call for what has to succeed.
func (f *faulty) must(args ...string) outcome {
	f.t.Helper()
	o := f.call("", args...)
	if o.status != 0 {
		f.t.Fatalf("%s: status %#x: %s", args, int(o.status), o.said)
	}
	return o
}

// before makes what the call needs.
func (f *faulty) before() {
	f.t.Helper()
	for _, call := range f.scenario.before {
		f.must(call...)
	}
	if f.scenario.half != "" {
		if o := f.call(f.scenario.half, "create", "ID"); !o.killed() {
			f.t.Fatalf("create was not killed at %s: %s", f.scenario.half, o.said)
		}
	}
}

// trace runs the call whole and returns its points; one that is passed more
// than once is there as often.
func (f *faulty) trace() []string {
	f.t.Helper()
	f.before()
	passed := f.must(f.scenario.call...).passed
	f.reuse()
	count := map[string]int{}
	var points []string
	for _, name := range passed {
		if !f.picks(name) {
			continue
		}
		count[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, count[name]))
	}
	if len(points) == 0 {
		f.t.Error("there are no fail points: this test tests nothing")
	}
	return points
}

// picks chooses one of the ways to die at an operation of the stage, another
// one at the next, and another one in the next scenario. An emulated machine
// has time for a few operations.
func (f *faulty) picks(name string) bool {
	way, at, ofStage := strings.Cut(name, "-at-")
	if !ofStage || os.Getenv(fullFaults) != "" {
		return true
	}
	var index int
	if _, err := fmt.Sscanf(at, "%d-", &index); err != nil {
		f.t.Fatalf("%s: %v", name, err)
	}
	if sparse := f.scenario.sparse || bundle.Patience(1) > 1; sparse && index%5 != 0 {
		return false
	}
	ways := []string{"stage-dies", "parent-dies", "both-die"}
	return ways[(index+len(f.scenario.name))%len(ways)] == way
}

// die kills the call at the point and looks whether everything can be removed.
func (f *faulty) die(point string) {
	f.t.Helper()
	if strings.HasPrefix(point, "filter-") { // these are passed by the first to use a profile
		if err := os.RemoveAll(filepath.Join(f.runtime.Root, ".seccomp")); err != nil {
			f.t.Fatal(err)
		}
	}
	f.before()
	o := f.call(point, f.scenario.call...)
	way, _, ofStage := strings.Cut(point, "-at-")
	switch {
	case ofStage && !slices.Contains(o.passed, way):
		f.t.Errorf("%s: not reached", point)
	case o.killed() != (way != "stage-dies"):
		f.t.Errorf("%s: status %#x: %s", point, int(o.status), o.said)
	}
	if makes := len(f.scenario.before) == 0 && f.scenario.half == ""; makes && !o.killed() && o.status != 0 {
		f.wantNothingLeft(point + ", by its own unwinding")
	}
	f.reuse()
	if f.t.Failed() {
		f.t.Fatalf("that was %s", point)
	}
}

// reuse removes the container by force and makes and removes it once more.
func (f *faulty) reuse() {
	f.t.Helper()
	f.must("delete", "--force", "ID")
	f.wantNothingLeft("delete --force")
	f.must("create", "ID")
	f.must("delete", "--force", "ID")
}

// wantNothingLeft looks for what there may be of a container. A process that
// has just been orphaned ends by itself, so it looks again for a while.
func (f *faulty) wantNothingLeft(after string) {
	f.t.Helper()
	var left []string
	for end := deadline(); time.Now().Before(end); time.Sleep(time.Millisecond) {
		f.family.reap(0)
		if left = f.left(); len(left) == 0 {
			return
		}
	}
	f.t.Errorf("left after %s: %q", after, left)
}

func (f *faulty) left() []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup/" + f.id, "/sys/fs/cgroup/*/" + f.id, f.runtime.Root + "/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			f.t.Fatal(err)
		}
		left = append(left, found...)
	}
	left = slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == ".seccomp" })
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(f.dir)) {
		left = append(left, "mounts")
	}
	return append(left, f.processes()...)
}

// processes are those of the runtime, stages among them, and of containers.
func (f *faulty) processes() []string {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		f.t.Fatal(err)
	}
	var found []string
	for _, proc := range all {
		exe, err := os.Readlink(proc + "/exe")
		if err != nil {
			continue // it has ended, or is the kernel's
		}
		environment, _ := os.ReadFile(proc + "/environ")
		if strings.TrimSuffix(exe, " (deleted)") == f.runtime.Path || bytes.Contains(environment, []byte(faultMark+f.id)) {
			found = append(found, fmt.Sprintf("process %s %s", filepath.Base(proc), exe))
		}
	}
	return found
}
