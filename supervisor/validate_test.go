package supervisor

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

func TestInvalidCreateNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*api.CreateContainerRequest){
		"id:":           func(r *api.CreateContainerRequest) { r.Id = "" },
		"id: \"../x\"":  func(r *api.CreateContainerRequest) { r.Id = "../x" },
		"id: \".lock\"": func(r *api.CreateContainerRequest) { r.Id = ".lock" },
		"bundlePath:":   func(r *api.CreateContainerRequest) { r.BundlePath = "relative" },
		"checkpoint:":   func(r *api.CreateContainerRequest) { r.Checkpoint = "a/b" },
		"stdout:":       func(r *api.CreateContainerRequest) { r.Stdout = "fifo" },
		"log.driver:":   func(r *api.CreateContainerRequest) { r.Log = &api.LogSpec{Driver: "syslog"} },
		"log.path:":     func(r *api.CreateContainerRequest) { r.Log = &api.LogSpec{Driver: "local"} },
		"log.max_size:": func(r *api.CreateContainerRequest) {
			r.Log = &api.LogSpec{Driver: "local", Path: "/x", MaxSize: -1}
		},
		"width,": func(r *api.CreateContainerRequest) { r.Width = 1 << 16 },
	} {
		request := &api.CreateContainerRequest{Id: "a", BundlePath: "/b"}
		if _, err := recipeOf(request); err != nil {
			t.Fatal(err)
		}
		change(request)
		_, err := recipeOf(request)
		if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestInvalidProcessNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*api.AddProcessRequest){
		"pid: \"init\"":    func(r *api.AddProcessRequest) { r.Pid = "init" },
		"pid: \"":          func(r *api.AddProcessRequest) { r.Pid = "a/b" },
		"pid: \"shim.json": func(r *api.AddProcessRequest) { r.Pid = "shim.json" },
		"args:":            func(r *api.AddProcessRequest) { r.Args = nil },
		"cwd:":             func(r *api.AddProcessRequest) { r.Cwd = "x" },
		"stdin:":           func(r *api.AddProcessRequest) { r.Stdin = "x" },
	} {
		request := &api.AddProcessRequest{Id: "a", Pid: "p", Args: []string{"true"}}
		if _, err := processRequestOf(request); err != nil {
			t.Fatal(err)
		}
		change(request)
		_, err := processRequestOf(request)
		if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestAddedProcessTakesTheContainersDefaults(t *testing.T) {
	umask := uint32(0o27)
	own := &specs.Process{
		Terminal: true, ConsoleSize: &specs.Box{Width: 1, Height: 2},
		User: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}, Umask: &umask},
		Args: []string{"init"}, Env: []string{"A=1"}, Cwd: "/work",
		Capabilities:    &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
		ApparmorProfile: "profile", SelinuxLabel: "label", NoNewPrivileges: true,
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}},
	}
	want := *own
	want.Terminal, want.ConsoleSize, want.Args, want.Cwd = false, nil, []string{"true"}, "/"
	if diff := cmp.Diff(&want, processSpec(&api.AddProcessRequest{Args: []string{"true"}}, own)); diff != "" {
		t.Errorf("an empty request: %s", diff)
	}

	got := processSpec(&api.AddProcessRequest{
		Terminal: true, Width: 80, Height: 24, User: &api.User{Uid: 0, Gid: 1}, Args: []string{"sh"},
		Env: []string{"B=2"}, Cwd: "/", Capabilities: []string{"CAP_CHOWN"}, ApparmorProfile: "p2", SelinuxLabel: "l2",
		Rlimits: []*api.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
	}, own)
	chown := []string{"CAP_CHOWN"}
	want = specs.Process{
		Terminal: true, ConsoleSize: &specs.Box{Width: 80, Height: 24},
		User: specs.User{GID: 1, Umask: &umask}, Args: []string{"sh"}, Env: []string{"B=2"}, Cwd: "/",
		Capabilities:    &specs.LinuxCapabilities{Bounding: chown, Effective: chown, Permitted: chown},
		ApparmorProfile: "p2", SelinuxLabel: "l2", NoNewPrivileges: true,
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 2}},
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("a full request: %s", diff)
	}
	if len(own.Capabilities.Bounding) != 1 || own.Args[0] != "init" {
		t.Error("the container's own process was changed")
	}
}

func TestZeroResourcesStayAsTheyAre(t *testing.T) {
	got, err := resourcesOf(&api.UpdateResource{})
	if diff := cmp.Diff(&specs.LinuxResources{}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	limit, unlimited, shares := int64(1<<20), int64(-1), uint64(512)
	got, err = resourcesOf(&api.UpdateResource{MemoryLimit: 1 << 20, MemorySwap: math.MaxUint64, CpuShares: 512, PidsLimit: -1})
	want := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit, Swap: &unlimited},
		CPU:    &specs.LinuxCPU{Shares: &shares},
		Pids:   &specs.LinuxPids{Limit: &unlimited},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestBlockDevicesOfAnUpdate(t *testing.T) {
	disk := &api.BlockIODevice{Major: 8, Minor: 16}
	got, err := resourcesOf(&api.UpdateResource{
		BlkioWeight: 500, BlkioLeafWeight: 10,
		BlkioWeightDevice:            []*api.WeightDevice{{BlkIODevice: disk, Weight: 20}, {BlkIODevice: disk}},
		BlkioThrottleReadBpsDevice:   []*api.ThrottleDevice{{BlkIODevice: disk, Rate: 1}, {BlkIODevice: disk}},
		BlkioThrottleWriteBpsDevice:  []*api.ThrottleDevice{{BlkIODevice: disk, Rate: 2}},
		BlkioThrottleReadIopsDevice:  []*api.ThrottleDevice{{BlkIODevice: disk, Rate: 3}},
		BlkioThrottleWriteIopsDevice: []*api.ThrottleDevice{{BlkIODevice: disk, Rate: math.MaxUint64}},
	})
	number := func(n uint16) *uint16 { return &n }
	rate := func(n uint64) []specs.LinuxThrottleDevice {
		one := specs.LinuxThrottleDevice{Rate: n}
		one.Major, one.Minor = 8, 16
		return []specs.LinuxThrottleDevice{one}
	}
	weighted := specs.LinuxWeightDevice{Weight: number(20)}
	weighted.Major, weighted.Minor = 8, 16
	want := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
		Weight: number(500), LeafWeight: number(10), WeightDevice: []specs.LinuxWeightDevice{weighted},
		ThrottleReadBpsDevice: rate(1), ThrottleWriteBpsDevice: rate(2), ThrottleReadIOPSDevice: rate(3), ThrottleWriteIOPSDevice: rate(math.MaxUint64),
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestInvalidResourcesNameTheField(t *testing.T) {
	disk := &api.BlockIODevice{Major: 8}
	for field, bad := range map[string]*api.UpdateResource{
		"resources.blkioWeight:":                               {BlkioWeight: 5},
		"resources.blkioLeafWeight:":                           {BlkioLeafWeight: 1001},
		"resources.memoryLimit:":                               {MemoryLimit: math.MaxUint64},
		"resources.memorySwap:":                                {MemorySwap: math.MaxUint64 - 1},
		"resources.pidsLimit:":                                 {PidsLimit: -2},
		"resources.blkioWeightDevice[0].blkIODevice:":          {BlkioWeightDevice: []*api.WeightDevice{{Weight: 20}}},
		"resources.blkioWeightDevice[0].weight:":               {BlkioWeightDevice: []*api.WeightDevice{{BlkIODevice: disk, Weight: 1}}},
		"resources.blkioWeightDevice[0].leafWeight:":           {BlkioWeightDevice: []*api.WeightDevice{{BlkIODevice: disk, LeafWeight: 1}}},
		"resources.blkioThrottleReadBpsDevice[1].blkIODevice:": {BlkioThrottleReadBpsDevice: []*api.ThrottleDevice{{BlkIODevice: disk}, nil}},
		"resources.blkioThrottleWriteIopsDevice[0].blkIODevice: -1:0": {
			BlkioThrottleWriteIopsDevice: []*api.ThrottleDevice{{BlkIODevice: &api.BlockIODevice{Major: -1}}}},
	} {
		if _, err := resourcesOf(bad); errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := resourcesOf(&api.UpdateResource{KernelMemoryLimit: 10}); errdefs.KindOf(err) != errdefs.NotImplemented {
		t.Error(err)
	}
}

func TestVersionIsTakenApart(t *testing.T) {
	for version, want := range map[string][3]uint32{
		"v1.2.3-4-gabc": {1, 2, 3}, "0.1": {0, 1, 0}, "unknown": {}, "": {}, "1.2.x": {1, 2, 0},
	} {
		major, minor, patch := parseVersion(version)
		if got := [3]uint32{major, minor, patch}; got != want {
			t.Errorf("%q: %v, want %v", version, got, want)
		}
	}
}
