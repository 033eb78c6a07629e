package cgroup

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/dbus"
	"github.com/engined/engined/proto/errdefs"
)

func TestSlicePaths(t *testing.T) {
	for name, want := range map[string]string{
		"-.slice": "/", "system.slice": "/system.slice", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice",
	} {
		if got, err := slicePath(name); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"", ".slice", "a", "a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice"} {
		if got, err := slicePath(name); err == nil || err.Error() != "invalid slice name: "+name {
			t.Errorf("%q: got %q, %v", name, got, err)
		}
	}
}

func unitSpec(path string) *specs.Spec { return &specs.Spec{Linux: &specs.Linux{CgroupsPath: path}} }

func TestUnitsOfPaths(t *testing.T) {
	for path, want := range map[string]unit{
		"":                       {name: "ocirun-id.scope", slice: "system.slice", title: "id"},
		"a.slice:p:n":            {name: "p-n.scope", slice: "a.slice", title: "n"},
		":p:n":                   {name: "p-n.scope", slice: "system.slice", title: "n"},
		"a.slice::a-b.slice":     {name: "a-b.slice", slice: "a.slice", title: "a-b.slice"},
		"machine.slice:docker:1": {name: "docker-1.scope", slice: "machine.slice", title: "1"},
	} {
		got, err := unitOf(unitSpec(path), "id", Options{})
		got.user = false // below a user namespace it is the user's
		if want.slice == "system.slice" && InUserNamespace() {
			want.slice = "user.slice"
		}
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", path, got, err, want)
		}
	}
	for _, path := range []string{"/a", "a:b", "a:b:c:d", "a.slice:p:", "a.slice:p:x/../y", "x:p:n", "a.slice:p/:n"} {
		if got, err := unitOf(unitSpec(path), "id", Options{}); errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%q: got %+v, %v", path, got, err)
		}
	}
	if got, err := unitOf(unitSpec(""), "id", Options{Rootless: true}); err != nil || got.slice != "user.slice" || !got.user {
		t.Errorf("rootless: got %+v, %v", got, err)
	}
}

func TestWhereUnitsAre(t *testing.T) {
	v2 := Layout{Mode: V2, hierarchies: []Hierarchy{{Mountpoint: "/c", Root: "/"}}}
	v1 := Layout{Mode: Hybrid, hierarchies: []Hierarchy{{Name: "cpu,cpuacct", Mountpoint: "/c/cpu,cpuacct", Root: "/"}, {Mountpoint: "/c/unified", Root: "/"}}}
	scope := unit{name: "p-n.scope", slice: "a-b.slice"}
	for _, test := range []struct {
		layout Layout
		unit   unit
		base   map[string]string
		want   Location
	}{
		{v2, scope, nil, Location{Unit: "p-n.scope", V2: "/c/a.slice/a-b.slice/p-n.scope"}},
		{v2, scope, map[string]string{"": "/user.slice/user@1.service"}, Location{Unit: "p-n.scope", V2: "/c/user.slice/user@1.service/a.slice/a-b.slice/p-n.scope"}},
		{v1, scope, map[string]string{"cpu,cpuacct": "/docker/1", "": "/"}, Location{Unit: "p-n.scope", V2: "/c/unified/a.slice/a-b.slice/p-n.scope",
			V1: map[string]string{"cpu,cpuacct": "/c/cpu,cpuacct/docker/1/a.slice/a-b.slice/p-n.scope"}}},
		{v2, unit{name: "x-y.slice", slice: "x.slice"}, nil, Location{Unit: "x-y.slice", V2: "/c/x.slice/x-y.slice"}},
	} {
		if got := test.layout.unitLocation(&test.unit, test.base); !reflect.DeepEqual(got, test.want) {
			t.Errorf("got %+v, want %+v", got, test.want)
		}
	}
}

// shown writes properties as name=value.
func shown(list []dbus.Struct) []string {
	var lines []string
	for _, one := range list {
		lines = append(lines, fmt.Sprintf("%s=%v", one[0], one[1].(dbus.Variant).Value))
	}
	return lines
}

func TestPropertiesOfLimits(t *testing.T) {
	r := &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(1500)), Reservation: ptr(int64(-1))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(12345)), Period: ptr(uint64(100000)), Cpus: "0-2,9", Mems: "1"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(300))},
	}
	const infinity = uint64(math.MaxUint64)
	for _, test := range []struct {
		v2      bool
		version int
		want    []string
	}{
		{true, 252, []string{"MemoryMax=1000", fmt.Sprint("MemoryLow=", infinity), "MemorySwapMax=500", "CPUWeight=100", "CPUQuotaPeriodUSec=100000",
			"CPUQuotaPerSecUSec=130000", "AllowedCPUs={y [7 2]}", "AllowedMemoryNodes={y [2]}", fmt.Sprint("TasksMax=", infinity)}},
		{true, 239, []string{"MemoryMax=1000", fmt.Sprint("MemoryLow=", infinity), "MemorySwapMax=500", "CPUWeight=100",
			"CPUQuotaPerSecUSec=130000", fmt.Sprint("TasksMax=", infinity)}},
		{false, 252, []string{"MemoryLimit=1000", "CPUShares=1024", "CPUQuotaPeriodUSec=100000",
			"CPUQuotaPerSecUSec=130000", "AllowedCPUs={y [7 2]}", "AllowedMemoryNodes={y [2]}", "BlockIOWeight=300", fmt.Sprint("TasksMax=", infinity)}},
	} {
		p := &propertyList{v2: test.v2, version: test.version}
		if err := p.resources(t.Context(), r); err != nil || !slices.Equal(shown(p.list), test.want) {
			t.Errorf("v2 %v, systemd %d: %v\ngot  %q\nwant %q", test.v2, test.version, err, shown(p.list), test.want)
		}
	}
	p := &propertyList{v2: true, version: 252}
	err := p.resources(t.Context(), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(0))}})
	if want := []string{"TasksMax=1"}; err != nil || !slices.Equal(shown(p.list), want) {
		t.Errorf("no processes: %q %v", shown(p.list), err)
	}
}

func TestPropertiesOfUnifiedFiles(t *testing.T) {
	p := &propertyList{v2: true, version: 252}
	r := &specs.LinuxResources{Unified: map[string]string{
		"memory.high": "max", "memory.min": "5", "memory.max": "7\n", "memory.swap.max": "0", "pids.max": "9", "cpu.weight": "50", "cpu.max": "20000 50000",
		"cpuset.cpus": "3", "cpuset.mems": "0", "io.max": "8:0 rbps=1", "cpu.idle": "0",
	}}
	want := []string{"CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=400000", "CPUWeight=50", "AllowedCPUs={y [8]}", "AllowedMemoryNodes={y [1]}",
		fmt.Sprint("MemoryHigh=", uint64(math.MaxUint64)), "MemoryMax=7", "MemoryMin=5", "MemorySwapMax=0", "TasksMax=9"}
	if err := p.resources(t.Context(), r); err != nil || !slices.Equal(shown(p.list), want) {
		t.Errorf("%v\ngot  %q\nwant %q", err, shown(p.list), want)
	}
	for file, text := range map[string]string{"memory.max": "1G", "cpu.max": "x", "cpuset.cpus": "1-", "pids.max": "-1", "cpuset.mems": "0-99999999"} {
		p := &propertyList{v2: true, version: 252}
		if err := p.resources(t.Context(), &specs.LinuxResources{Unified: map[string]string{file: text}}); errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%s=%s: got %v, %v", file, text, shown(p.list), err)
		}
	}
}

func TestPropertiesOfAnnotations(t *testing.T) {
	got, err := annotated(map[string]string{
		"org.systemd.property.TimeoutStopUSec": "uint64 7", "org.systemd.property.RuntimeMaxSec": "1.5", "org.systemd.property.After": "['a.service']",
		"org.systemd.property.CollectMode": "'inactive'", "other": "x",
	})
	want := []string{"After={s [a.service]}", "CollectMode=inactive", "RuntimeMaxUSec=1500000", "TimeoutStopUSec=7"}
	if err != nil || !slices.Equal(shown(got), want) {
		t.Errorf("got %q, %v; want %q", shown(got), err, want)
	}
	for key, text := range map[string]string{"Name": "nothing", "ab": "1", "With space": "1", "StopSec": "'x'", "WaitSec": "-1"} {
		if got, err := annotated(map[string]string{AnnotationPrefix + key: text}); errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%s=%s: got %v, %v", key, text, shown(got), err)
		}
	}
}

func TestDevicesInSystemdsWords(t *testing.T) {
	got, err := deviceProperties([]specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"}, {Allow: true, Type: "b", Major: ptr(int64(8)), Minor: ptr(int64(1)), Access: "r"},
	})
	lines := strings.Join(shown(got), "\n")
	if err != nil || !strings.HasPrefix(lines, "DevicePolicy=strict\nDeviceAllow={(ss) []}\nDeviceAllow={(ss) [[/dev/block/8:1 r] ") ||
		!strings.Contains(lines, "[char-* m]") || !strings.Contains(lines, "[/dev/char/1:3 rwm]") {
		t.Errorf("%v: %s", err, lines)
	}
	got, err = deviceProperties([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}})
	if err != nil || !slices.Equal(shown(got), []string{"DevicePolicy=auto", "DeviceAllow={(ss) []}"}) {
		t.Errorf("%v: %v", err, shown(got))
	}
	devices := "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 other\n"
	for _, test := range []struct {
		kind  string
		major int64
		want  string
	}{{"char", 136, "pts"}, {"block", 136, "other"}, {"block", 8, "sd"}, {"char", 8, ""}} {
		if got := deviceGroup(devices, test.kind, test.major); got != test.want {
			t.Errorf("%s %d: got %q, want %q", test.kind, test.major, got, test.want)
		}
	}
}

func TestSystemdVersions(t *testing.T) {
	for text, want := range map[string]int{"252.39-1~deb12u2": 252, "v244": 244, "v255~rc1": 255, "": 0, "x": 0} {
		if got := parseVersion(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
