package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestLimitsOfBlockDevicesChange: what runc's update passes over, and what is
// not named stays.
func TestLimitsOfBlockDevicesChange(t *testing.T) {
	s := newStack(t)
	disk, number := anyDisk(t)
	pid := int(s.run("a", "exec sleep 1000").Processes[0].SystemPid)
	update := func(resources *api.UpdateResource) error {
		_, err := s.client.UpdateContainer(t.Context(), &api.UpdateContainerRequest{Id: "a", Resources: resources})
		return err
	}
	rate := func(n uint64) []*api.ThrottleDevice { return []*api.ThrottleDevice{{BlkIODevice: disk, Rate: n}} }
	err := update(&api.UpdateResource{BlkioThrottleReadBpsDevice: rate(1 << 20), BlkioThrottleWriteIopsDevice: rate(100), MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := update(&api.UpdateResource{BlkioThrottleReadBpsDevice: rate(2 << 20), CpuShares: 512}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"read_bps_device": "2097152", "write_iops_device": "100"} {
		v2 := map[string]string{"read_bps_device": "rbps=", "write_iops_device": "wiops="}[file]
		got := cgroupValue(t, pid, "blkio", "blkio.throttle."+file, "io.max")
		if !strings.HasPrefix(got, number+" ") || !strings.HasSuffix(got, " "+want) && !strings.Contains(got, v2+want) {
			t.Errorf("%s: %q, expected %s %s", file, got, number, want)
		}
	}
	if limit := cgroupValue(t, pid, "memory", "memory.limit_in_bytes", "memory.max"); limit != fmt.Sprint(64<<20) {
		t.Errorf("memory limit %s", limit)
	}
	absent := &api.UpdateResource{BlkioThrottleReadBpsDevice: []*api.ThrottleDevice{{BlkIODevice: &api.BlockIODevice{Major: 4095, Minor: 1}, Rate: 1}}, MemoryLimit: 32 << 20}
	if err := update(absent); err == nil || !strings.Contains(err.Error(), "throttleReadBpsDevice") {
		t.Errorf("a device that is not there: %v", err)
	}
	if limit := cgroupValue(t, pid, "memory", "memory.limit_in_bytes", "memory.max"); limit != fmt.Sprint(64<<20) {
		t.Errorf("a refused update changed the memory limit to %s", limit)
	}
}

// TestStatusWinsOverResources: a request with both pauses and changes nothing.
func TestStatusWinsOverResources(t *testing.T) {
	s := newStack(t)
	pid := int(s.run("a", "exec sleep 1000").Processes[0].SystemPid)
	before := cgroupValue(t, pid, "memory", "memory.limit_in_bytes", "memory.max")
	for _, status := range []string{"paused", "running"} {
		request := &api.UpdateContainerRequest{Id: "a", Status: status, Resources: &api.UpdateResource{MemoryLimit: 64 << 20}}
		if _, err := s.client.UpdateContainer(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		if got := s.state("a").Status; got != status {
			t.Errorf("it is %s, expected %s", got, status)
		}
	}
	if limit := cgroupValue(t, pid, "memory", "memory.limit_in_bytes", "memory.max"); limit != before {
		t.Errorf("memory limit %s, expected %s", limit, before)
	}
	for _, bad := range []*api.UpdateContainerRequest{{Id: "a", Status: "stopped"}, {Id: "a"}} {
		if _, err := s.client.UpdateContainer(t.Context(), bad); errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "status") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// anyDisk returns a block device that can be throttled.
func anyDisk(t *testing.T) (*api.BlockIODevice, string) {
	t.Helper()
	disks, _ := filepath.Glob("/sys/block/[hnsvx]*/dev")
	for _, path := range disks {
		number := strings.TrimSpace(read(t, path))
		device := &api.BlockIODevice{}
		if _, err := fmt.Sscanf(number, "%d:%d", &device.Major, &device.Minor); err == nil {
			return device, number
		}
	}
	t.Skip("no disk in /sys/block")
	return nil, ""
}

// TestUpdateOfWhatIsGone: no limits of a container that has stopped.
func TestUpdateOfWhatIsGone(t *testing.T) {
	s := newStack(t)
	c := s.run("a", "exec sleep 1000")
	if err := unix.Kill(int(c.Processes[0].SystemPid), unix.SIGKILL); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s.wait("a", "")
	_, err := s.client.UpdateContainer(t.Context(), &api.UpdateContainerRequest{Id: "a", Resources: &api.UpdateResource{BlkioWeight: 100}})
	if errdefs.CodeOf(err) != errdefs.NotRunning {
		t.Errorf("%v", err)
	}
}
