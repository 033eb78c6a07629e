package libcontainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

func TestIDsAsRunc(t *testing.T) {
	for id, valid := range map[string]bool{
		"a": true, "web_1.x+y-z": true, "...": true, ".seccomp": false, "": false, ".": false, "..": false, "a/b": false, "a b": false, "ä": false, "a,b": false,
	} {
		if err := validateID(id); (err == nil) != valid {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := Open(t.TempDir(), id); valid && errdefs.CodeOf(err) != errdefs.NoSuchContainer {
			t.Errorf("opening %q: %v", id, err)
		}
	}
}

func TestReserveOnceSaveAndOpen(t *testing.T) {
	root := filepath.Join(t.TempDir(), "not/there/yet")
	c, err := Reserve(root, "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Reserve(root, "web"); errdefs.KindOf(err) != errdefs.AlreadyExists {
		t.Errorf("the second Reserve: %v", err)
	}
	if _, err := Open(root, "web"); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
		t.Errorf("reserved, without a state: %v", err)
	}
	c.State = State{
		ID: "web", Bundle: "/b", Rootfs: "/b/rootfs", Pid: 7, PidStart: 8, Created: time.Unix(9, 0).UTC(),
		Annotations: map[string]string{"a": "b"}, Cgroup: cgroup.Location{V1: map[string]string{"memory": "/m"}},
	}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, "web"); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
		t.Errorf("being made: %v", err)
	}
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(root, "web")
	if err != nil || !reflect.DeepEqual(opened, c) {
		t.Errorf("%+v, %v", opened, err)
	}
	if info, err := os.Stat(c.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestListPassesOverWhatIsHalfMade(t *testing.T) {
	root := t.TempDir()
	good, err := Reserve(root, "good")
	if err != nil {
		t.Fatal(err)
	}
	good.State.ID = "good"
	if err := cmp.Or(good.Save(), good.Publish()); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(SeccompCache(root), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]string{"half": "", "corrupt": "{"} {
		c, err := Reserve(root, name)
		if err != nil {
			t.Fatal(err)
		}
		if state == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(c.Dir(), StateFile), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, skipped, err := List(root)
	if err != nil || len(list) != 1 || list[0].ID != "good" {
		t.Errorf("%v, %v", list, err)
	}
	if len(skipped) != 1 || errdefs.KindOf(skipped[0]) != errdefs.DataLoss {
		t.Errorf("skipped %v", skipped)
	}
}

// process starts a sleep and returns a container whose first process it is.
func process(t *testing.T) (*Container, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may be dead already
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	start, err := ProcessStart(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Reserve(t.TempDir(), "c")
	if err != nil {
		t.Fatal(err)
	}
	c.State.ID, c.State.Pid, c.State.PidStart = "c", cmd.Process.Pid, start
	if err := cmp.Or(c.Save(), c.Publish()); err != nil {
		t.Fatal(err)
	}
	return c, cmd
}

func wantStatus(t *testing.T, c *Container, want Status) {
	t.Helper()
	if got, err := c.Status(); err != nil || got != want {
		t.Errorf("status %q (%v), want %q", got, err, want)
	}
}

func TestStatusIsDerived(t *testing.T) {
	c, cmd := process(t)
	wantStatus(t, c, Running)
	fifo := filepath.Join(c.Dir(), FifoFile)
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Created)
	freezer := t.TempDir() // a freezer that says what we write
	if err := os.WriteFile(filepath.Join(freezer, "freezer.state"), []byte("FROZEN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.State.Cgroup = cgroup.Location{V1: map[string]string{"freezer": freezer}}
	wantStatus(t, c, Paused)
	c.State.Cgroup = cgroup.Location{}

	c.State.PidStart++
	wantStatus(t, c, Stopped) // the pid is another process's now
	c.State.PidStart--
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := awaitExit(t.Context(), fd); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, c, Stopped) // a zombie
	cmd.Wait()                //nolint:errcheck // it was killed
	wantStatus(t, c, Stopped)
}

func TestStatOfAnOddName(t *testing.T) {
	numbers := " 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 139"
	want := processStat{name: "a) R 1 2", state: 'Z', flags: 6, start: 4242, exit: 139}
	if got, err := parseStat([]byte("7 (a) R 1 2) Z" + numbers)); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "7 (a", "7 )a(", "7 (a) R 1", "7 (a) R" + strings.Replace(numbers, "4242", "x", 1), "7 (a) RR" + numbers} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGUSR1": 10, "0": 0, "42": 42} {
		if got, err := ParseSignal(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	if _, err := ParseSignal("FOO"); err == nil || err.Error() != `unknown signal "FOO"` {
		t.Errorf("%v", err)
	}
}

func TestKillOfWhatRunsAndWhatDoesNot(t *testing.T) {
	c, cmd := process(t)
	if err := Kill(t.Context(), c, 0); err != nil {
		t.Error(err)
	}
	if err := Kill(t.Context(), c, 99); !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "unable to signal init: ") {
		t.Errorf("signal 99: %v", err)
	}
	if err := Kill(t.Context(), c, unix.SIGTERM); err != nil {
		t.Error(err)
	}
	cmd.Wait() //nolint:errcheck // it was terminated
	err := Kill(t.Context(), c, unix.SIGTERM)
	if errdefs.CodeOf(err) != errdefs.NotRunning || err.Error() != "container not running" {
		t.Errorf("%v", err)
	}
}

func TestUpdateOfRdt(t *testing.T) {
	c, cmd := process(t)
	config := `{"linux":{"intelRdt":{"memBwSchema":"MB:0=50"}}}`
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(c.Dir(), ConfigFile), config)
	if err := UpdateRdt(c, "L3:0=f", ""); errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("without a group: %v", err)
	}
	c.State.Resctrl.Dir = t.TempDir()
	schemata := filepath.Join(c.State.Resctrl.Dir, "schemata")
	write(schemata, "")
	if err := UpdateRdt(c, "L3:0=f", ""); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(schemata); string(text) != "L3:0=f\n" {
		t.Errorf("%q %v", text, err)
	}
	if spec, err := c.Spec(); err != nil || spec.Linux.IntelRdt.L3CacheSchema != "L3:0=f" || spec.Linux.IntelRdt.MemBwSchema != "MB:0=50" {
		t.Errorf("%+v %v", spec, err)
	}
	cmd.Process.Kill() //nolint:errcheck // the wait tells
	cmd.Wait()         //nolint:errcheck // it was killed
	if err := UpdateRdt(c, "L3:0=f", ""); errdefs.CodeOf(err) != errdefs.NotRunning {
		t.Errorf("stopped: %v", err)
	}
}

func TestDelete(t *testing.T) {
	c, cmd := process(t)
	err := Delete(t.Context(), c.Root, c.ID, false)
	if errdefs.CodeOf(err) != errdefs.Running || err.Error() != "cannot delete container c that is not stopped: running" {
		t.Errorf("%v", err)
	}
	if err := Delete(t.Context(), c.Root, c.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended well")
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
	if err := Delete(t.Context(), c.Root, c.ID, true); err != nil {
		t.Errorf("by force, of nothing: %v", err)
	}
	if err := Delete(t.Context(), c.Root, c.ID, false); errdefs.CodeOf(err) != errdefs.NoSuchContainer {
		t.Errorf("of nothing: %v", err)
	}
	if err := Delete(t.Context(), c.Root, "../x", true); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("of a path: %v", err)
	}
}

// Without force, too: runc's callers count on it.
func TestDeleteKillsWhatWasNeverStarted(t *testing.T) {
	c, cmd := process(t)
	if err := unix.Mkfifo(filepath.Join(c.Dir(), FifoFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Delete(t.Context(), c.Root, c.ID, false); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended well")
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory: %v", err)
	}
}

// What create left when it was killed before it wrote a state: a directory, a
// config, cgroups.
func TestDeleteByForceOfHalfAContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	layout, err := cgroup.Detect()
	if err != nil {
		t.Skip(err)
	}
	root := t.TempDir()
	c, err := Reserve(root, "half")
	if err != nil {
		t.Fatal(err)
	}
	parent := "/engined-test-half-" + filepath.Base(t.TempDir()) + "-" + time.Now().Format("150405.000000")
	spec := &specs.Spec{Version: specs.Version, Linux: &specs.Linux{CgroupsPath: parent}}
	config := `{"ociVersion":"1.3.0","linux":{"cgroupsPath":"` + parent + `"}}`
	if err := os.WriteFile(filepath.Join(c.Dir(), ConfigFile), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cg, err := cgroup.Make(layout, spec, "half", cgroup.Options{})
	if err != nil {
		t.Skip("cgroups cannot be made here: ", err)
	}
	t.Cleanup(func() { cg.Remove(t.Context()) }) //nolint:errcheck // in case the test failed
	other, err := Reserve(root, "other")
	if err != nil {
		t.Fatal(err)
	}
	other.State.Cgroup = cg.Location()
	if err := other.Save(); err != nil {
		t.Fatal(err)
	}
	exists := func() bool { return unix.Access(filepath.Dir(cg.JoinFiles()[0]), unix.F_OK) == nil }
	if len(cg.JoinFiles()) == 0 {
		exists = func() bool { return unix.Access(cg.Dir(), unix.F_OK) == nil }
	}
	if err := Delete(t.Context(), root, "half", true); err != nil || !exists() {
		t.Errorf("a cgroup of another container was removed (%v)", err)
	}
	if err := os.RemoveAll(other.Dir()); err != nil {
		t.Fatal(err)
	}
	if c, err = Reserve(root, "half"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir(), ConfigFile), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Delete(t.Context(), root, "half", true); err != nil || exists() {
		t.Errorf("the cgroup is still there (%v)", err)
	}
}

func TestDeleteByForceOfAStateThatSaysLittleOrNothing(t *testing.T) {
	for _, state := range []string{"", "{", "{}"} {
		c, err := Reserve(t.TempDir(), "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.Dir(), StateFile), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Delete(t.Context(), c.Root, "c", true); err != nil || unix.Access(c.Dir(), unix.F_OK) == nil {
			t.Errorf("%q: %v", state, err)
		}
	}
}

// Half a container whose cgroup was somebody's before it kills nobody.
func TestDeleteByForceLeavesOlderProcesses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	layout, err := cgroup.Detect()
	if err != nil {
		t.Skip(err)
	}
	path := "/engined-test-older-" + filepath.Base(t.TempDir()) + "-" + time.Now().Format("150405.000000")
	cg, err := cgroup.Make(layout, &specs.Spec{Version: specs.Version, Linux: &specs.Linux{CgroupsPath: path}}, "half", cgroup.Options{})
	if err != nil {
		t.Skip("cgroups cannot be made here: ", err)
	}
	_, cmd := process(t)
	taken := cg
	if cg.Dir() != "" { // as is a service's that knows nothing of v1
		taken = cgroup.At(cgroup.Location{V2: cg.Dir()})
	}
	if err := cmp.Or(cg.SetCPU(nil), taken.Add(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()                                      //nolint:errcheck // it may be dead
		cmd.Wait()                                              //nolint:errcheck // it was killed
		if err := cg.Remove(context.Background()); err != nil { //nolint:usetesting // whose context has ended
			t.Error(err)
		}
	})
	time.Sleep(1100 * time.Millisecond) // what is as young as this may be the container's own
	c, err := Reserve(t.TempDir(), "half")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir(), ConfigFile)
	if err := os.WriteFile(file, []byte(`{"ociVersion":"1.3.0","linux":{"cgroupsPath":"`+path+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Delete(t.Context(), c.Root, "half", true); err != nil || unix.Access(c.Dir(), unix.F_OK) == nil {
		t.Errorf("%v", err)
	}
	if ended, err := hasEnded(cmd.Process.Pid); err != nil || ended {
		t.Errorf("the process was killed: %v", err)
	}
}

func TestPidFileReplacesALink(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(dir, ".pid")); err != nil {
		t.Fatal(err)
	}
	if err := writePidFile(filepath.Join(dir, "pid"), 12); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "pid")); err != nil || string(text) != "12" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "as it was" {
		t.Errorf("%q, %v", text, err)
	}
}

// The root of a user namespace has a directory of its own, as every user but root.
func TestDefaultRoot(t *testing.T) {
	const inside = "ENGINED_TEST_DEFAULT_ROOT"
	if os.Getenv(inside) != "" {
		fmt.Println("root=" + DefaultRoot())
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: for its default")
	}
	for _, test := range []struct {
		flags uintptr
		user  string
		want  string
	}{
		{0, "", "/run/ocirun"},
		{unix.CLONE_NEWUSER, "", "/somewhere/ocirun"},
		{unix.CLONE_NEWUSER, "root", "/run/ocirun"},
	} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDefaultRoot$")
		cmd.Env = append(os.Environ(), inside+"=1", "XDG_RUNTIME_DIR=/somewhere", "USER="+test.user)
		// Not all ids: that is how a user namespace is told from the host's.
		ids := []syscall.SysProcIDMap{{HostID: 0, Size: 1}}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: test.flags}
		if test.flags != 0 {
			cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "root="+test.want+"\n") {
			t.Errorf("%+v: %v %s", test, err, out)
		}
	}
}

func TestPauseAndResumeRefuse(t *testing.T) {
	c, cmd := process(t)
	if err := Resume(t.Context(), c); err == nil || err.Error() != "container not paused" {
		t.Errorf("%v", err)
	}
	cmd.Process.Kill() //nolint:errcheck // it runs
	cmd.Wait()         //nolint:errcheck // it was killed
	if err := Pause(t.Context(), c); err == nil || err.Error() != "container not running" {
		t.Errorf("%v", err)
	}
	if err := Update(t.Context(), c, &specs.LinuxResources{}); errdefs.CodeOf(err) != errdefs.NotRunning {
		t.Errorf("%v", err)
	}
}

func number[T any](n T) *T { return &n }

// Zero leaves a limit alone; a changed one takes its partners along.
func TestMergeOfLimits(t *testing.T) {
	before := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: number(int64(100)), Swap: number(int64(200))},
		CPU:    &specs.LinuxCPU{Quota: number(int64(5)), Period: number(uint64(10)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: number(int64(7))},
	}
	changes := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: number(int64(0)), Swap: number(int64(300))},
		CPU:     &specs.LinuxCPU{Quota: number(int64(6)), Shares: number(uint64(0))},
		Pids:    &specs.LinuxPids{Limit: number(int64(0))},
		BlockIO: &specs.LinuxBlockIO{Weight: number(uint16(20))},
		Unified: map[string]string{"memory.high": "1"},
	}
	before.BlockIO = &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(1, 5), throttle(2, 5)}}
	changes.BlockIO.ThrottleReadBpsDevice = []specs.LinuxThrottleDevice{throttle(2, 6), throttle(3, 7)}
	touched := merge(before, changes)
	if want := []specs.LinuxThrottleDevice{throttle(1, 5), throttle(2, 6), throttle(3, 7)}; !reflect.DeepEqual(before.BlockIO.ThrottleReadBpsDevice, want) {
		t.Errorf("limits of devices: %v", before.BlockIO.ThrottleReadBpsDevice)
	}
	if !reflect.DeepEqual(touched.BlockIO, changes.BlockIO) {
		t.Errorf("block devices: %+v", touched.BlockIO)
	}
	if *touched.Memory.Limit != 100 || *touched.Memory.Swap != 300 {
		t.Errorf("memory %d %d", *touched.Memory.Limit, *touched.Memory.Swap)
	}
	if *touched.CPU.Quota != 6 || *touched.CPU.Period != 10 || touched.CPU.Cpus != "" || before.CPU.Cpus != "0" || touched.CPU.Shares != nil {
		t.Errorf("cpu %+v", touched.CPU)
	}
	if *touched.Pids.Limit != 0 || *before.Pids.Limit != 0 || *before.BlockIO.Weight != 20 || before.Unified["memory.high"] != "1" {
		t.Errorf("%+v", before)
	}
}

func TestMergeOfMemoryWithoutALimit(t *testing.T) {
	for _, test := range []struct{ limit, swap, want *int64 }{
		{number(int64(-1)), nil, number(int64(-1))}, // swap has no limit alone
		{number(int64(-1)), number(int64(0)), number(int64(-1))},
		{number(int64(300)), nil, number(int64(200))},
		{number(int64(300)), number(int64(0)), nil},
		{nil, number(int64(0)), number(int64(200))},
	} {
		before := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: number(int64(100)), Swap: number(int64(200))}}
		touched := merge(before, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: test.limit, Swap: test.swap}})
		if !reflect.DeepEqual(touched.Memory.Swap, test.want) {
			t.Errorf("%+v: swap %v", test, touched.Memory.Swap)
		}
	}
}

func throttle(minor int64, rate uint64) specs.LinuxThrottleDevice {
	device := specs.LinuxThrottleDevice{Rate: rate}
	device.Major, device.Minor = 8, minor
	return device
}

func TestExampleIsValid(t *testing.T) {
	spec := Example(true)
	if err := validate(spec); err != nil {
		t.Error(err)
	}
	if namespace(spec, specs.CgroupNamespace) == nil || namespace(Example(false), specs.CgroupNamespace) != nil {
		t.Error("the cgroup namespace")
	}
	ToRootless(spec, 1000, 1001)
	if err := validate(spec); err != nil {
		t.Error("rootless: ", err)
	}
	if namespace(spec, specs.NetworkNamespace) != nil || spec.Linux.UIDMappings[0].HostID != 1000 || spec.Linux.GIDMappings[0].HostID != 1001 {
		t.Errorf("rootless: %+v", spec.Linux)
	}
}

// What features says is not done is refused, and what it says is done is not.
func TestFeaturesAreTrue(t *testing.T) {
	f := Features("1", "")
	for _, kind := range f.Linux.Namespaces {
		spec := Example(false)
		spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		if kind != "mount" {
			spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind)})
		}
		spec.Hostname = ""
		if kind == "user" {
			spec.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}}
			spec.Linux.GIDMappings = spec.Linux.UIDMappings
		}
		if err := validate(spec); err != nil {
			t.Errorf("namespace %s: %v", kind, err)
		}
	}
	for _, mode := range f.Linux.MemoryPolicy.Modes {
		for _, flag := range f.Linux.MemoryPolicy.Flags {
			spec := Example(false)
			spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode), Flags: []specs.MemoryPolicyFlagType{specs.MemoryPolicyFlagType(flag)}}
			if err := validate(spec); err != nil {
				t.Error(err)
			}
		}
	}
	if want := []string{"org.criu.config", "org.systemd.property."}; !slices.Equal(f.PotentiallyUnsafeConfigAnnotations, want) {
		t.Errorf("annotations: %q", f.PotentiallyUnsafeConfigAnnotations)
	}
	spec := Example(false)
	spec.Linux.IntelRdt, spec.Linux.NetDevices = &specs.LinuxIntelRdt{}, map[string]specs.LinuxNetDevice{"eth0": {}}
	if err := validate(spec); err != nil || !*f.Linux.IntelRdt.Enabled || !*f.Linux.NetDevices.Enabled {
		t.Errorf("intelRdt, netDevices: %v", err)
	}
}
