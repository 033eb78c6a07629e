package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// private makes a real cgroup below a parent of the test's own and removes
// both at the end.
func private(t *testing.T, r *specs.LinuxResources) *Cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	layout, err := Detect()
	if err != nil {
		t.Skip("no cgroups here: ", err)
	}
	parent := fmt.Sprintf("/engined-test-cgroup-%d-%d", os.Getpid(), time.Now().UnixNano())
	spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: parent + "/one", Resources: r}}
	c, err := Make(layout, spec, "one", Options{})
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
			t.Skip("cgroups cannot be made here: ", err)
		}
		t.Fatal(err)
	}
	if err := c.SetCPU(r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for _, dir := range c.dirs() {
			if err := removeDir(ctx, filepath.Dir(dir)); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

// set writes all limits.
func (c *Cgroup) set(r *specs.LinuxResources) error { return errors.Join(c.SetButCPU(r), c.SetCPU(r)) }

// sleeper starts a process in the cgroup.
func sleeper(t *testing.T, c *Cgroup) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may be dead already
		cmd.Wait()         //nolint:errcheck // it was killed
	})
	if err := c.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func ptr[T any](v T) *T { return &v }

// expect compares a file that has different names on v1 and v2; an empty name
// skips the mode.
func expect(t *testing.T, c *Cgroup, controller, v1, v2, wantV1, wantV2 string) {
	t.Helper()
	dir, file, want := c.dirOf(controller), v1, wantV1
	if c.unified() {
		dir, file, want = c.location.V2, v2, wantV2
	}
	if file == "" {
		return
	}
	got, err := read(dir, file)
	if err != nil {
		t.Error(err)
	}
	if strings.TrimSpace(got) != want {
		t.Errorf("%s is %q, want %q", file, got, want)
	}
}

func TestLimitsArriveInTheKernel(t *testing.T) {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20)), Reservation: ptr(int64(32 << 20))},
		CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(200000)),
			Burst: ptr(uint64(10000)), Cpus: "0", Mems: "0",
		},
		Pids: &specs.LinuxPids{Limit: ptr(int64(77))},
	}
	c := private(t, r)
	if err := c.set(r); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "memory", "memory.limit_in_bytes", "memory.max", "67108864", "67108864")
	expect(t, c, "memory", "memory.soft_limit_in_bytes", "memory.low", "33554432", "33554432")
	expect(t, c, "memory", "memory.memsw.limit_in_bytes", "", "134217728", "")
	expect(t, c, "cpu", "cpu.shares", "cpu.weight", "512", "59")
	expect(t, c, "cpu", "cpu.cfs_quota_us", "cpu.max", "50000", "50000 200000")
	expect(t, c, "cpu", "cpu.cfs_period_us", "", "200000", "")
	expect(t, c, "cpu", "cpu.cfs_burst_us", "cpu.max.burst", "10000", "10000")
	expect(t, c, "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0")
	expect(t, c, "pids", "pids.max", "pids.max", "77", "77")
	for limit, text := range map[int64]string{0: "1", -1: "max"} {
		if err := c.set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(limit)}}); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "pids", "pids.max", "pids.max", text, text)
	}
}

// Limits that bound each other can be raised and lowered together.
func TestUpdateRaisesAndLowersBoundLimits(t *testing.T) {
	c := private(t, nil)
	for _, megabytes := range []int64{64, 512, 32, 256} {
		r := &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: ptr(megabytes << 20), Swap: ptr(megabytes << 21)},
			CPU:    &specs.LinuxCPU{Quota: ptr(megabytes * 500), Period: ptr(uint64(megabytes * 1000)), Burst: ptr(uint64(megabytes * 250))},
		}
		if err := c.Update(t.Context(), r); err != nil {
			t.Fatalf("%d MB: %v", megabytes, err)
		}
		expect(t, c, "memory", "memory.limit_in_bytes", "memory.max", fmt.Sprint(megabytes<<20), fmt.Sprint(megabytes<<20))
		expect(t, c, "cpu", "cpu.cfs_burst_us", "cpu.max.burst", fmt.Sprint(megabytes*250), fmt.Sprint(megabytes*250))
	}
	if err := c.Update(t.Context(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}}); err != nil {
		t.Fatal("unlimited: ", err)
	}
	expect(t, c, "memory", "", "memory.max", "", "max")
}

// What is in use now is looked at before anything is set, if the spec wants that.
func TestLimitsBelowTheUsageAreRefused(t *testing.T) {
	c := private(t, nil)
	dir, file := c.dirOf("memory"), "memory.usage_in_bytes"
	if c.unified() {
		dir, file = c.location.V2, "memory.current"
	}
	shell := exec.Command("/bin/sh", "-c", "echo $$ >"+dir+"/cgroup.procs && kill -STOP $$")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		shell.Process.Kill() //nolint:errcheck // it is stopped
		shell.Wait()         //nolint:errcheck // it was killed
	}()
	var status unix.WaitStatus
	if _, err := unix.Wait4(shell.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("%v, status %#x", err, int(status))
	}
	usage, err := readNumber(dir, file)
	if err != nil || usage == 0 {
		t.Fatalf("usage %d, %v", usage, err)
	}
	for _, m := range []specs.LinuxMemory{
		{Limit: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)},
		{Limit: ptr(int64(-1)), Swap: ptr(int64(4096)), CheckBeforeUpdate: ptr(true)},
	} {
		if err := c.Update(t.Context(), &specs.LinuxResources{Memory: &m}); err == nil || !strings.Contains(err.Error(), "limit 4096 <= usage") {
			t.Errorf("%v", err)
		}
	}
}

// An idle cgroup has no weight, which must not keep it from anything else.
func TestIdleAndBack(t *testing.T) {
	c := private(t, nil)
	cpu := &specs.LinuxCPU{Shares: ptr(uint64(512)), Idle: ptr(int64(1))}
	for _, step := range []struct {
		change       func()
		idle, v1, v2 string
	}{
		{func() {}, "1", "3", "0"},
		{func() { cpu.Quota, cpu.Shares = ptr(int64(50000)), ptr(uint64(600)) }, "1", "3", "0"},
		{func() { cpu.Idle = ptr(int64(0)) }, "0", "600", "66"},
		{func() { cpu.Idle = ptr(int64(1)) }, "1", "3", "0"},
	} {
		step.change()
		if err := c.Update(t.Context(), &specs.LinuxResources{CPU: cpu}); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "cpu", "cpu.idle", "cpu.idle", step.idle, step.idle)
		expect(t, c, "cpu", "cpu.shares", "cpu.weight", step.v1, step.v2)
	}
}

func TestRefusedValueNamesFieldAndValue(t *testing.T) {
	c := private(t, nil)
	err := c.Update(t.Context(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}})
	if errdefs.CodeOf(err) != errdefs.SpecInvalid && !errors.Is(err, unix.EACCES) {
		t.Errorf("code of %v is %q", err, errdefs.CodeOf(err))
	}
	for _, want := range []string{"linux.resources.cpu.cpus", "4000", "cpuset.cpus"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestDevicesOfAV1Cgroup(t *testing.T) {
	c := private(t, nil)
	if c.dirOf("devices") == "" {
		t.Skip("no v1 devices hierarchy")
	}
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(229)), Access: "rw"},
	}
	if err := c.set(&specs.LinuxResources{Devices: rules}); err != nil {
		t.Fatal(err)
	}
	list, err := read(c.dirOf("devices"), "devices.list")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(list, "c 10:229 rw\n") || !strings.Contains(list, "c 1:3 rwm\n") || strings.Contains(list, "a ") {
		t.Errorf("devices.list:\n%s", list)
	}
	if err := c.set(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	expect(t, c, "devices", "devices.list", "", "a *:* rwm", "")
}

// A single-threaded process that writes itself to JoinFiles, having been
// cloned into Dir, is in every hierarchy.
func TestJoinFilesMoveTheWriter(t *testing.T) {
	c := private(t, nil)
	script := "read go; "
	for _, file := range c.JoinFiles() {
		script += "echo 0 > " + file + " && "
	}
	cmd := exec.Command("sh", "-c", script+"cat /proc/self/cgroup")
	cmd.Stdin = strings.NewReader("go\n")
	if dir := c.Dir(); dir != "" {
		fd, err := open(dir, unix.O_DIRECTORY|unix.O_RDONLY)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "engined-test-cgroup") {
			t.Errorf("not joined: %s", line)
		}
	}
}

func TestFreezeThawKillRemove(t *testing.T) {
	c := private(t, nil)
	if c.FreezerDir() == "" {
		t.Skip("no freezer")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := sleeper(t, c)
	if of, err := Of(cmd.Process.Pid); err != nil || of.FreezerDir() != c.FreezerDir() || of.Dir() != c.Dir() {
		t.Errorf("Of gives %+v (%v), want %+v", of, err, c)
	}
	if err := c.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.Frozen(); err != nil || !frozen {
		t.Errorf("after Freeze: frozen %v, %v", frozen, err)
	}
	if err := c.Thaw(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.Frozen(); err != nil || frozen {
		t.Errorf("after Thaw: frozen %v, %v", frozen, err)
	}
	if err := c.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if pids, err := c.Pids(true); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := c.Kill(ctx); err != nil {
		t.Fatal("killing what is frozen: ", err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	for range 2 {
		if err := c.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range c.dirs() {
		if unix.Access(dir, unix.F_OK) == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	if err := errors.Join(c.Kill(ctx), c.Thaw(ctx)); err != nil {
		t.Error("acting on a removed cgroup: ", err)
	}
	if pids, err := c.Pids(true); err != nil || len(pids) > 0 {
		t.Errorf("pids of a removed cgroup: %v, %v", pids, err)
	}
}

func TestSignalReachesWhatIsBelow(t *testing.T) {
	c := private(t, nil)
	if err := c.Signal(unix.SIGTERM); err != nil {
		t.Errorf("nobody: %v", err)
	}
	cmd := sleeper(t, c)
	for _, dir := range c.dirs() {
		below := filepath.Join(dir, "below")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := read(dir, file); err == nil && !c.unified() {
				_ = write(below, file, strings.TrimSpace(value))
			}
		}
		if err := write(below, "cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Signal(99); !errors.Is(err, unix.EINVAL) {
		t.Errorf("signal 99: %v", err)
	}
	if err := c.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGUSR1 {
		t.Errorf("the process ended with %v", err)
	}
}

func TestRemoveTakesChildrenWithIt(t *testing.T) {
	c := private(t, nil)
	for _, dir := range c.dirs() {
		if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestMakeRefusesACgroupWithProcesses(t *testing.T) {
	c := private(t, nil)
	sleeper(t, c)
	layout, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	path := "/" + filepath.Base(filepath.Dir(c.dirs()[0])) + "/one"
	_, err = Make(layout, &specs.Spec{Linux: &specs.Linux{CgroupsPath: path}}, "one", Options{})
	if errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("got %v", err)
	}
}

// TestMadeInTwoSteps: between them a process of the cgroup's own is in its v2 directory.
func TestMadeInTwoSteps(t *testing.T) {
	there := private(t, nil)
	layout, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if layout.Mode != Hybrid {
		t.Skip("needs v1 hierarchies with a v2 one beside them")
	}
	parent := "/" + filepath.Base(filepath.Dir(there.Dir()))
	named := func(name string) *specs.Spec {
		return &specs.Spec{Linux: &specs.Linux{CgroupsPath: parent + "/" + name}}
	}
	if c, err := Begin(layout, named("one"), "one", Options{}); c != nil || err != nil {
		t.Errorf("of a cgroup that is there: %v, %v", c, err)
	}
	c, err := Begin(layout, named("two"), "two", Options{})
	if err != nil || c == nil || len(c.location.V1) > 0 {
		t.Fatalf("the first step: %+v, %v", c, err)
	}
	inside := sleeper(t, c)
	defer func() {
		_ = inside.Process.Kill()
		_ = inside.Wait()
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}()

	// Somebody's process is in v1's freezer: theirs stays, ours go, the first step's is as
	// it was.
	whole := Locate(layout, named("two"), "two")
	theirs := &Cgroup{location: Location{V1: map[string]string{"freezer": whole.V1["freezer"]}}}
	if err := os.Mkdir(whole.V1["freezer"], 0o755); err != nil {
		t.Fatal(err)
	}
	other := sleeper(t, theirs)
	err = c.Finish(layout, named("two"), "two", Options{})
	if errdefs.KindOf(err) != errdefs.FailedPrecondition || len(c.location.V1) > 0 {
		t.Errorf("with a process in it: %v, %+v", err, c.location)
	}
	for name, dir := range whole.V1 {
		if _, err := os.Stat(dir); (err == nil) != (name == "freezer") {
			t.Errorf("%s after the refusal: %v", dir, err)
		}
	}
	if pids, err := theirs.Pids(true); err != nil || !slices.Contains(pids, other.Process.Pid) {
		t.Errorf("the others there: %v, %v", pids, err)
	}
	_ = other.Process.Kill()
	_ = other.Wait()
	if err := theirs.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}

	if err := c.Finish(layout, named("two"), "two", Options{}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(c.location.V1, whole.V1) || c.location.V2 != whole.V2 {
		t.Errorf("made %+v, want %+v", c.location, whole)
	}
}

func TestStatsCountAProcess(t *testing.T) {
	c := private(t, nil)
	sleeper(t, c)
	stats, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Pids.Current != 1 || stats.Pids.Limit != Unlimited {
		t.Errorf("pids %+v", stats.Pids)
	}
	if stats.Memory.Limit != Unlimited || len(stats.Memory.Raw) == 0 {
		t.Errorf("memory %+v", stats.Memory)
	}
}

// A process that takes more than the limit is killed, seen by the watch and
// counted.
func TestOOMIsSeen(t *testing.T) {
	c := private(t, nil)
	limit := &specs.LinuxMemory{Limit: ptr(int64(4 << 20)), Swap: ptr(int64(4 << 20))}
	if err := c.Update(t.Context(), &specs.LinuxResources{Memory: limit}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	oom, err := c.WatchOOM(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "read go; dd if=/dev/zero of=/dev/null bs=64M count=2")
	start, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(start)
	if err := cmd.Wait(); err == nil {
		t.Error("dd survived 64 MB in 4 MB")
	}
	select {
	case _, open := <-oom:
		if !open {
			t.Error("the watch ended")
		}
	case <-ctx.Done():
		t.Error("no notice")
	}
	if kills, err := c.OOMKills(); err != nil || kills == 0 {
		t.Errorf("%d kills, %v", kills, err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	for range oom { // ends because the cgroup is gone
	}
}

func BenchmarkMakeSetRemove(b *testing.B) {
	layout, err := Detect()
	if err != nil || os.Geteuid() != 0 {
		b.Skip("needs root and cgroups")
	}
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(512))},
		Pids: &specs.LinuxPids{Limit: ptr(int64(77))}, Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}},
	}
	spec := &specs.Spec{Linux: &specs.Linux{CgroupsPath: "/engined-test-cgroup-bench", Resources: r}}
	for b.Loop() {
		c, err := Make(layout, spec, "bench", Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.set(r); err != nil {
			b.Fatal(err)
		}
		if err := c.Remove(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Skip(err)
		}
	}
}
