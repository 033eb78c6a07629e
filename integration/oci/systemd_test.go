package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
)

// systemdRuntimes skips where systemd is not the service manager, and gives
// every runtime --systemd-cgroup.
func systemdRuntimes(t *testing.T) (ocirun, runc bundle.Runtime, dir string) {
	t.Helper()
	ocirun, references, dir := runtimes(t)
	if found, err := os.Lstat("/run/systemd/system"); err != nil || !found.IsDir() {
		t.Skip("systemd is not this machine's service manager")
	}
	at := slices.IndexFunc(references, func(r bundle.Runtime) bool { return r.Name == "runc" })
	if at < 0 {
		t.Skip("runc is not installed")
	}
	return ocirun, references[at], dir
}

// unitBundle makes a bundle whose unit is PREFIX-ID.scope in a slice of its own.
func unitBundle(t *testing.T, dir, id, slice string, change func(*specs.Spec)) {
	t.Helper()
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"/bin/sleep", "1000"}
	spec.Linux.CgroupsPath = slice + ":" + "engtest" + ":" + id
	if change != nil {
		change(spec)
	}
	if err := bundle.Make(dir, spec); err != nil {
		t.Fatal(err)
	}
}

func withLimits(spec *specs.Spec) {
	limit, swap, low, pids, quota := int64(64<<20), int64(128<<20), int64(32<<20), int64(77), int64(25500)
	period, null, rwm := uint64(50000), int64(1), int64(11)
	r := spec.Linux.Resources
	r.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &swap, Reservation: &low}
	r.Pids = &specs.LinuxPids{Limit: &pids}
	r.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: "0", Mems: "0"}
	r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &null, Minor: &rwm, Access: "rw"},
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &null, Access: "r"})
	spec.Annotations = map[string]string{
		"org.systemd.property.TimeoutStopUSec": "uint64 9000000", "org.systemd.property.CollectMode": "'inactive-or-failed'",
		"org.systemd.property.RuntimeMaxSec": "uint32 4000", "org.example.other": "x",
	}
}

// shown are the properties that runtimes set.
const shown = "Description,Slice,Delegate,DelegateControllers,MemoryAccounting,CPUAccounting,IOAccounting,BlockIOAccounting," +
	"TasksAccounting,DefaultDependencies,MemoryMax,MemoryLimit,MemoryLow,MemoryHigh,MemorySwapMax,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec," +
	"AllowedCPUs,AllowedMemoryNodes,TasksMax,DevicePolicy,DeviceAllow,TimeoutStopUSec,CollectMode,RuntimeMaxUSec,ActiveState,CPUWeight,CPUShares"

// properties asks systemd for a unit's, the container's name left out.
func properties(t *testing.T, id string) []string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--no-pager", "-p", shown, "engtest-"+id+".scope").CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl show: %v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(out), id, "ID")), "\n")
	slices.Sort(lines)
	return slices.DeleteFunc(lines, absent)
}

// absent reports a rule for a device that this machine does not have: runc
// before 1.2 leaves it out, for the sake of systemd before 240.
func absent(line string) bool {
	node, ok := strings.CutPrefix(line, "DeviceAllow=/dev/")
	if !ok {
		return false
	}
	node, _, _ = strings.Cut(node, " ")
	_, err := os.Stat("/sys/dev/" + node)
	return err != nil
}

func unitGone(t *testing.T, id string) {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-p", "LoadState", "--value", "engtest-"+id+".scope").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "not-found" {
		t.Errorf("unit of %s: %v, %s", id, err, out)
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/*/engtest-" + id + ".scope")
	more, _ := filepath.Glob("/sys/fs/cgroup/*/engtest-" + id + ".scope") // the pattern is the same
	if err != nil || len(left)+len(more) > 0 {
		t.Errorf("cgroups left: %v %v %v", left, more, err)
	}
}

// TestSystemdUnitsAreAsRuncs walks through a container's life with systemd's
// cgroups: after each step the unit has the properties that runc's has.
func TestSystemdUnitsAreAsRuncs(t *testing.T) {
	ocirun, runc, dir := systemdRuntimes(t)
	for name, change := range map[string]func(*specs.Spec){"plain": nil, "limits": withLimits} {
		t.Run(name, func(t *testing.T) {
			var walks [2][]string
			for i, runtime := range []bundle.Runtime{ocirun, runc} {
				id := fmt.Sprintf("%s%s%d", name, filepath.Base(dir), i)
				walks[i] = unitWalk(t, runtime, filepath.Join(dir, id), id, change)
			}
			if !slices.Equal(walks[0], walks[1]) {
				t.Errorf("ocirun and runc differ:\n%s", strings.Join(differing(walks[0], walks[1]), "\n"))
			}
		})
	}
}

func differing(ours, theirs []string) []string {
	var lines []string
	for i := range max(len(ours), len(theirs)) {
		var a, b string
		if i < len(ours) {
			a = ours[i]
		}
		if i < len(theirs) {
			b = theirs[i]
		}
		if a != b {
			lines = append(lines, "ocirun "+a+"\nrunc   "+b)
		}
	}
	return lines
}

// unitWalk returns what systemd and the cgroup say after each step.
func unitWalk(t *testing.T, runtime bundle.Runtime, dir, id string, change func(*specs.Spec)) []string {
	t.Helper()
	unitBundle(t, dir, id, "engtest-inner.slice", change)
	t.Cleanup(func() { _, _ = runtime.Call(dir, "delete", "--force", id) })
	var seen []string
	step := func(args ...string) string {
		t.Helper()
		out, err := callDetached(runtime, dir, args...)
		if err != nil {
			t.Fatalf("%s %v: %v", runtime.Name, args, err)
		}
		if out.Status != 0 {
			t.Fatalf("%s %v: status %d: %s%s", runtime.Name, args, out.Status, out.Stdout, out.Stderr)
		}
		return strings.ReplaceAll(out.Stdout, id, "ID")
	}
	step("--systemd-cgroup", "create", id)
	seen = append(seen, properties(t, id)...)
	step("start", id)
	seen = append(seen, step("exec", id, "cat", "/proc/self/cgroup"))
	step("update", "--memory", "50331648", "--memory-swap", "67108864", "--pids-limit", "55", "--cpu-quota", "30000", "--cpu-period", "100000", id)
	seen = append(seen, properties(t, id)...)
	step("pause", id)
	seen = append(seen, stateOf(t, step("state", id), "ID", strings.ReplaceAll(dir, id, "ID")))
	step("resume", id)
	step("kill", id, "KILL")
	awaitStopped(t, runtime, dir, id)
	step("delete", id)
	unitGone(t, id)
	return seen
}

// TestSystemdRefusals: the texts are runc's.
func TestSystemdRefusals(t *testing.T) {
	ocirun, runc, dir := systemdRuntimes(t)
	for i, path := range []string{"path", "a:b", "/a/b", "noslice:a:b", "a--b.slice:a:b", "a/b.slice:a:b", ":a:b:c"} {
		id := fmt.Sprintf("refused%s%d", filepath.Base(dir), i)
		bundleDir := filepath.Join(dir, id)
		unitBundle(t, bundleDir, id, "system.slice", func(spec *specs.Spec) { spec.Linux.CgroupsPath = path })
		var texts [2]string
		for j, runtime := range []bundle.Runtime{ocirun, runc} {
			out, err := runtime.Call(bundleDir, "--systemd-cgroup", "run", id)
			if err != nil || out.Status != 1 {
				t.Errorf("%s with %q: status %d, %v", runtime.Name, path, out.Status, err)
			}
			_, texts[j], _ = strings.Cut(out.Stderr, runtime.Name+" run failed: ")
		}
		if texts[0] != texts[1] || texts[0] == "" {
			t.Errorf("path %q: ocirun %q, runc %q", path, texts[0], texts[1])
		}
	}
}

// TestSystemdFailedStartLeavesNothing: neither a process that cannot be
// executed nor a property that systemd refuses leaves a unit.
func TestSystemdFailedStartLeavesNothing(t *testing.T) {
	ocirun, _, dir := systemdRuntimes(t)
	for name, change := range map[string]func(*specs.Spec){
		"command":    func(spec *specs.Spec) { spec.Process.Args = []string{"/none"} },
		"property":   func(spec *specs.Spec) { spec.Annotations = map[string]string{"org.systemd.property.NoSuch": "true"} },
		"annotation": func(spec *specs.Spec) { spec.Annotations = map[string]string{"org.systemd.property.Delegate": "tru"} },
	} {
		id := name + filepath.Base(dir)
		bundleDir := filepath.Join(dir, id)
		unitBundle(t, bundleDir, id, "engtest-inner.slice", change)
		out, err := ocirun.Call(bundleDir, "--systemd-cgroup", "run", id)
		if err != nil || out.Status == 0 {
			t.Errorf("%s: status %d, %v", name, out.Status, err)
		}
		unitGone(t, id)
		if _, err := os.Lstat(filepath.Join(ocirun.Root, id)); !os.IsNotExist(err) {
			t.Errorf("%s: the container's directory: %v", name, err)
		}
	}
}

// TestSystemdExit: a container that ends by itself, without limits and path.
func TestSystemdExit(t *testing.T) {
	ocirun, _, dir := systemdRuntimes(t)
	id := "exit" + filepath.Base(dir)
	bundleDir := filepath.Join(dir, id)
	unitBundle(t, bundleDir, id, "system.slice", func(spec *specs.Spec) {
		spec.Process.Args = []string{"sh", "-c", "cat /proc/self/cgroup; exit 7"}
		spec.Linux.CgroupsPath = ""
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" }) // not without a namespace
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		spec.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := ocirun.Call(bundleDir, "--systemd-cgroup", "run", id)
	if err != nil || out.Status != 7 || !strings.Contains(out.Stdout, "/system.slice/ocirun-"+id+".scope") {
		t.Errorf("status %d, %v: %s%s", out.Status, err, out.Stdout, out.Stderr)
	}
}
