package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// privateV2 is the v2 part of a private cgroup. A hybrid host has it too, without
// controllers: freezing, killing and device filters need none.
func privateV2(t *testing.T) *Cgroup {
	t.Helper()
	c := private(t, nil)
	if c.Dir() == "" {
		t.Skip("v2 is not mounted")
	}
	return At(Location{V2: c.Dir()})
}

// inside runs a shell script in the cgroup, cloned into it.
func inside(t *testing.T, c *Cgroup, script string) *exec.Cmd {
	t.Helper()
	fd, err := open(c.Dir(), unix.O_DIRECTORY|unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	return cmd
}

func TestV2TellsOfPressure(t *testing.T) {
	c := privateV2(t)
	if _, err := read(c.Dir(), "cpu.pressure"); err != nil {
		t.Skipf("the kernel counts none: %v", err)
	}
	// Two that never pause on one processor: one of them waits.
	cmd := inside(t, c, "taskset -cp 0 $$ >/dev/null; for i in 1 2; do timeout 1 sh -c 'while :; do :; done' & done; wait")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	stats, err := c.Stats()
	if err != nil || stats.CPU.Pressure == nil || stats.CPU.Pressure.Some.Total == 0 || stats.Memory.Pressure == nil || stats.IO.Pressure == nil {
		t.Errorf("%v, %+v", err, stats)
	}
}

func TestV2FreezesAndKills(t *testing.T) {
	c := privateV2(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := inside(t, c, "sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Freeze(ctx); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.Frozen(); err != nil || !frozen {
		t.Errorf("frozen %v, %v", frozen, err)
	}
	events, err := read(c.Dir(), "cgroup.events")
	if err != nil || parseFlat(events)["frozen"] != 1 {
		t.Errorf("the kernel says %q, %v", events, err)
	}
	if err := c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	if pids, err := c.Pids(true); err != nil || len(pids) > 0 {
		t.Errorf("left: %v, %v", pids, err)
	}
	if err := c.Remove(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestV2KillWithoutCgroupKill takes the way of kernels before 5.14.
func TestV2KillWithoutCgroupKill(t *testing.T) {
	c := privateV2(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := inside(t, c, "sleep 1000 & sleep 1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		left, err := c.killOnce(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			break
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended well")
	}
}

func TestV2DeviceFilterIsInForce(t *testing.T) {
	c := privateV2(t)
	deny := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}}
	// /dev/kmsg is a device that no container has by default.
	if _, err := os.Stat("/dev/kmsg"); err != nil {
		t.Skip(err)
	}
	try := func() bool { return inside(t, c, "exec 3< /dev/kmsg").Run() == nil }
	if err := c.set(deny); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("bpf(2): ", err)
		}
		t.Fatal(err)
	}
	if out, err := inside(t, c, "echo x > /dev/null && head -c1 /dev/zero >/dev/null").CombinedOutput(); err != nil {
		t.Errorf("null and zero: %v %s", err, out)
	}
	if try() {
		t.Error("kmsg can be opened")
	}
	allow := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, device("c", 1, 11, "r", true)}}
	if err := c.set(allow); err != nil {
		t.Fatal(err)
	}
	if !try() {
		t.Error("kmsg cannot be opened after the second rules")
	}
	fd, err := open(c.Dir(), unix.O_DIRECTORY|unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if ids, err := attachedFilters(fd); err != nil || len(ids) != 1 {
		t.Errorf("attached: %v, %v", ids, err)
	}
}
