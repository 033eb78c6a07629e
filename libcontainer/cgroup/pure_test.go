package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

const hybridMounts = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 /docker/x /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /mnt/a\040b rw,relatime - cgroup cgroup rw,xattr,name=systemd
38 31 0:33 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
`

const hybridOwn = "4:cpu,cpuacct:/\n3:memory:/docker/x/inner\n2:name=systemd:/a:b\n0::/own\n"

func TestDetectHybridFromMountinfo(t *testing.T) {
	layout, err := detect(hybridMounts, hybridOwn)
	if err != nil {
		t.Fatal(err)
	}
	want := []Hierarchy{
		{"cpu,cpuacct", []string{"cpu", "cpuacct"}, "/sys/fs/cgroup/cpu,cpuacct", "/", "/"},
		{"memory", []string{"memory"}, "/sys/fs/cgroup/memory", "/docker/x", "/docker/x/inner"},
		{"name=systemd", nil, "/mnt/a b", "/", "/a:b"},
		{"", nil, "/sys/fs/cgroup/unified", "/", "/own"},
	}
	if layout.Mode != Hybrid || !reflect.DeepEqual(layout.Hierarchies(), want) {
		t.Errorf("%s %+v", layout.Mode, layout.Hierarchies())
	}
}

func TestDetectTheOtherModes(t *testing.T) {
	v2 := "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	if layout, err := detect(v2, "0::/x\n"); err != nil || layout.Mode != V2 || layout.hierarchies[0].OwnPath != "/x" {
		t.Errorf("%+v, %v", layout, err)
	}
	v1 := "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	if layout, err := detect(v1, "3:memory:/\n"); err != nil || layout.Mode != V1 {
		t.Errorf("%+v, %v", layout, err)
	}
	if _, err := detect("", ""); err == nil {
		t.Error("found cgroups in nothing")
	}
}

// The usual mount points give what mountinfo gives; anything unusual does not
// pass for usual.
func TestUsualLayout(t *testing.T) {
	hybrid := map[string]int64{
		"/sys/fs/cgroup":              unix.TMPFS_MAGIC,
		"/sys/fs/cgroup/memory/own":   unix.CGROUP_SUPER_MAGIC,
		"/sys/fs/cgroup/systemd":      unix.CGROUP_SUPER_MAGIC,
		"/sys/fs/cgroup/unified":      unix.CGROUP2_SUPER_MAGIC,
		"/sys/fs/cgroup/pids/missing": 0,
	}
	v2 := map[string]int64{"/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC, "/sys/fs/cgroup/own": unix.CGROUP2_SUPER_MAGIC}
	for _, c := range []struct {
		name, own string
		files     map[string]int64
		mode      Mode
		ok        bool
	}{
		{"hybrid", "4:memory:/own\n2:name=systemd:/\n0::/\n", hybrid, Hybrid, true},
		{"v1 without v2 mounted", "4:memory:/own\n0::/\n", map[string]int64{"/sys/fs/cgroup/memory/own": unix.CGROUP_SUPER_MAGIC}, V1, true},
		{"v2", "0::/own\n", v2, V2, true},
		{"own cgroup not shown", "4:pids:/missing\n0::/\n", hybrid, "", false},
		{"malformed", "nonsense\n", hybrid, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			layout, ok := usual(c.own, func(path string) int64 { return c.files[path] })
			if ok != c.ok || ok && layout.Mode != c.mode {
				t.Errorf("%v %+v", ok, layout)
			}
		})
	}
}

func TestBothWaysOfDetectingAgreeHere(t *testing.T) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Skip(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skip(err)
	}
	fast, ok := usual(string(own), fileSystem)
	if !ok {
		t.Skip("cgroups are mounted elsewhere")
	}
	slow, err := detect(string(mounts), string(own))
	if err != nil {
		t.Fatal(err)
	}
	byName := func(a, b Hierarchy) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(fast.hierarchies, byName)
	slices.SortFunc(slow.hierarchies, byName)
	if !reflect.DeepEqual(fast, slow) {
		t.Errorf("usual: %+v\nmountinfo: %+v", fast, slow)
	}
}

func TestDirRules(t *testing.T) {
	plain := Hierarchy{Name: "memory", Mountpoint: "/m", Root: "/", OwnPath: "/own/here"}
	bound := Hierarchy{Name: "memory", Mountpoint: "/m", Root: "/docker/x", OwnPath: "/docker/x/in"}
	outside := Hierarchy{Name: "memory", Mountpoint: "/m", Root: "/docker/x", OwnPath: "/docker/xy"}
	for _, c := range []struct {
		h          Hierarchy
		path, want string
		v2         bool
	}{
		{plain, "/a/b", "/m/a/b", false},
		{plain, "/a/../../../b", "/m/b", false},
		{plain, "a/b", "/m/own/here/a/b", false},
		{plain, "../../../a", "/m/own/here/a", false},
		{plain, "", "/m/own/here/ID", false},
		{plain, "", "/m/own/ID", true},
		{plain, "/a", "/m/a", true},
		{bound, "a", "/m/in/a", false},
		{bound, "/a", "/m/a", false},
		{outside, "a", "/m/a", false},
	} {
		if got := c.h.dir(c.path, "ID", c.v2); got != c.want {
			t.Errorf("%+v %q v2=%v: %s, want %s", c.h, c.path, c.v2, got, c.want)
		}
	}
}

func TestLocationJSONIsStable(t *testing.T) {
	text := `{"v1":{"cpu,cpuacct":"/c/x","name=systemd":"/s/x"},"v2":"/u/x"}`
	var l Location
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(err)
	}
	c := At(l)
	if c.dirOf("cpuacct") != "/c/x" || c.dirOf("memory") != "" || c.unified() || c.Dir() != "/u/x" {
		t.Errorf("%+v", c)
	}
	if got := c.JoinFiles(); !reflect.DeepEqual(got, []string{"/c/x/tasks", "/s/x/tasks"}) {
		t.Errorf("join files %q", got)
	}
	if encoded, err := json.Marshal(c.Location()); err != nil || string(encoded) != text {
		t.Errorf("%s, %v", encoded, err)
	}
}

func TestSwapOnV2(t *testing.T) {
	for _, c := range []struct {
		limit, swap int64
		want        string
		fails       bool
	}{
		{0, 0, "", false},
		{100, 0, "", false},
		{-1, 0, "max", false},
		{100, -1, "max", false},
		{100, 100, "0", false},
		{100, 150, "50", false},
		{100, 50, "", true},
		{0, 50, "", true},
		{-1, 50, "", true},
		{100, -2, "", true},
	} {
		got, err := swapV2(c.limit, c.swap)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("limit %d swap %d: %q, %v", c.limit, c.swap, got, err)
		}
		if err != nil && errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%v has code %q", err, errdefs.CodeOf(err))
		}
	}
}

func TestWeightsOnV2(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000} {
		if got := weightV2(shares); got != want {
			t.Errorf("%d shares: weight %d, want %d", shares, got, want)
		}
	}
	for weight, want := range map[uint16]uint64{0: 0, 5: 1, 10: 1, 500: 4950, 1000: 10000} {
		if got := ioWeightV2(weight); got != want {
			t.Errorf("blkio weight %d: %d, want %d", weight, got, want)
		}
	}
}

func TestCPUMax(t *testing.T) {
	for _, c := range []struct {
		quota  int64
		period uint64
		want   string
	}{{0, 0, ""}, {50000, 0, "50000 100000"}, {-1, 0, "max 100000"}, {0, 20000, "max 20000"}, {50000, 20000, "50000 20000"}} {
		if got := maxV2(c.quota, c.period); got != c.want {
			t.Errorf("%d/%d: %q, want %q", c.quota, c.period, got, c.want)
		}
	}
}

// A directory of plain files shows what updateV2 writes, without a v2 host.
func TestV2WritesOfASpec(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{
		"memory.max", "memory.swap.max", "memory.low", "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpuset.cpus",
		"cpuset.mems", "pids.max", "io.weight", "io.max", "hugetlb.2MB.max", "rdma.max", "memory.high",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	device := specs.LinuxThrottleDevice{Rate: 1000}
	device.Major, device.Minor = 8, 16
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(100)), Swap: ptr(int64(150)), Reservation: ptr(int64(50))},
		CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(1024)), Quota: ptr(int64(5)), Period: ptr(uint64(10)), Burst: ptr(uint64(1)), Idle: ptr(int64(0)), Cpus: "0-1", Mems: "0",
		},
		Pids:           &specs.LinuxPids{Limit: ptr(int64(-1))},
		BlockIO:        &specs.LinuxBlockIO{Weight: ptr(uint16(500)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{device}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4096}},
		Rdma:           map[string]specs.LinuxRdma{"mlx": {HcaHandles: ptr(uint32(3))}},
		Unified:        map[string]string{"memory.high": "77"},
	}
	if err := At(Location{V2: dir}).Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"memory.max": "100", "memory.swap.max": "50", "memory.low": "50", "cpu.weight": "100", "cpu.max": "5 10",
		"cpu.max.burst": "1", "cpu.idle": "0", "cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "max", "io.weight": "4950",
		"io.max": "8:16 rbps=1000", "hugetlb.2MB.max": "4096", "rdma.max": "mlx hca_handle=3", "memory.high": "77",
	} {
		got, err := read(dir, file)
		if err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", file, got, err, want)
		}
	}
}

func TestRefusedBeforeTheKernelSeesIt(t *testing.T) {
	c := At(Location{V2: t.TempDir()})
	for field, r := range map[string]*specs.LinuxResources{
		"cpu.shares":                 {CPU: &specs.LinuxCPU{Shares: ptr(uint64(1))}},
		"memory.swappiness":          {Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(101))}},
		"memory.limit":               {Memory: &specs.LinuxMemory{Limit: ptr(int64(-2))}},
		"memory.swap":                {Memory: &specs.LinuxMemory{Swap: ptr(int64(5))}},
		"hugepageLimits[0].pageSize": {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}},
		"unified":                    {Unified: map[string]string{"../memory.max": "1"}},
		"network":                    {Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}},
		"rdma":                       {Rdma: map[string]specs.LinuxRdma{"a b": {}}},
		"cpu.realtimeRuntime":        {CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(5))}},
	} {
		code, subject := errdefs.CodeAndSubject(c.Update(t.Context(), r))
		if code != errdefs.SpecInvalid || subject != "linux.resources."+field {
			t.Errorf("%s: %q %q", field, code, subject)
		}
	}
	v1 := At(Location{V1: map[string]string{"cpu": t.TempDir()}})
	if err := v1.Update(t.Context(), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(5))}}); errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("a limit without its controller: %v", err)
	}
}

func device(kind string, major, minor int64, access string, allow bool) specs.LinuxDeviceCgroup {
	rule := specs.LinuxDeviceCgroup{Allow: allow, Type: kind, Access: access}
	if major != anyNumber {
		rule.Major = &major
	}
	if minor != anyNumber {
		rule.Minor = &minor
	}
	return rule
}

func TestDeviceRulesBecomeV1Writes(t *testing.T) {
	always := make([]string, 0, len(alwaysAllowed))
	for _, rule := range alwaysAllowed {
		always = append(always, rule.String())
	}
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		first string
		lines []string
	}{
		{"none", nil, "devices.deny", always},
		{"deny all", []specs.LinuxDeviceCgroup{device("a", -1, -1, "rwm", false)}, "devices.deny", always},
		{"allow all", []specs.LinuxDeviceCgroup{device("", -1, -1, "", true)}, "devices.allow", nil},
		{"one", []specs.LinuxDeviceCgroup{device("c", 10, 229, "rw", true)}, "devices.deny", append([]string{"c 10:229 rw"}, always...)},
		{"joined", []specs.LinuxDeviceCgroup{device("c", 10, 229, "r", true), device("c", 10, 229, "w", true)}, "devices.deny", append([]string{"c 10:229 rw"}, always...)},
		{"taken back", []specs.LinuxDeviceCgroup{device("b", 8, -1, "rwm", true), device("b", 8, -1, "w", false)}, "devices.deny", append([]string{"b 8:* rm"}, always...)},
		// mknod is allowed always and everywhere
		{"all but one", []specs.LinuxDeviceCgroup{device("a", -1, -1, "rwm", true), device("b", 8, 0, "rwm", false)}, "devices.allow", []string{"b 8:0 rw"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := newPolicy(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			first, _, lines := p.writesV1()
			if first != c.first || !slices.Equal(lines, c.lines) {
				t.Errorf("%s, %q", first, lines)
			}
		})
	}
}

func TestInvalidDeviceRules(t *testing.T) {
	for name, rules := range map[string][]specs.LinuxDeviceCgroup{
		"type":   {device("x", 1, 1, "r", true)},
		"access": {device("c", 1, 1, "rx", true)},
		"number": {device("c", -7, 1, "r", true)},
		"hole":   {device("c", 4, -1, "rwm", true), device("c", 4, 5, "w", false)},
	} {
		if _, err := newPolicy(rules); errdefs.CodeOf(err) != errdefs.SpecInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// allowed is the meaning of a policy, said the long way.
func (p devicePolicy) allowed(kind byte, major, minor int64, a access) bool {
	for _, e := range p.exceptions {
		hit := e.covers(deviceKey{kind, major, minor})
		if p.allowAll && hit && e.access&a != 0 || !p.allowAll && hit && a&^e.access == 0 {
			return !p.allowAll
		}
	}
	return p.allowAll
}

// run interprets the filter as the kernel would.
func run(t *testing.T, program []instruction, kind byte, major, minor int64, a access) bool {
	t.Helper()
	var r [10]uint64
	context := map[int16]uint32{0: uint32(a)<<16 | uint32(kindBits[kind]), 4: uint32(major), 8: uint32(minor)}
	for pc := 0; pc < len(program); pc++ {
		i := program[pc]
		switch i.code {
		case unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W:
			r[i.dst] = uint64(context[i.offset])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			r[i.dst] = uint64(uint32(r[i.dst]) & uint32(i.imm))
		case unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K:
			r[i.dst] = uint64(uint32(r[i.dst]) >> i.imm)
		case unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X:
			r[i.dst] = uint64(uint32(r[i.src]))
		case unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K:
			r[i.dst] = uint64(int64(i.imm))
		case unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K:
			if uint32(r[i.dst]) != uint32(i.imm) {
				pc += int(i.offset)
			}
		case unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K:
			if uint32(r[i.dst]) == uint32(i.imm) {
				pc += int(i.offset)
			}
		case unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_X:
			if uint32(r[i.dst]) != uint32(r[i.src]) {
				pc += int(i.offset)
			}
		case unix.BPF_JMP | unix.BPF_EXIT:
			return r[0] == 1
		default:
			t.Fatalf("instruction %d has code %#x", pc, i.code)
		}
	}
	t.Fatal("ran out of the program")
	return false
}

func TestDeviceFilterMeansThePolicy(t *testing.T) {
	for _, rules := range [][]specs.LinuxDeviceCgroup{
		nil,
		{device("a", -1, -1, "rwm", true)},
		{device("a", -1, -1, "rwm", true), device("b", 8, -1, "w", false), device("c", 1, 3, "rwm", false)},
		{device("c", 10, 229, "rw", true), device("b", 8, -1, "r", true), device("c", -1, 7, "m", true)},
	} {
		p, err := newPolicy(rules)
		if err != nil {
			t.Fatal(err)
		}
		program := p.deviceFilter()
		for _, kind := range []byte{'b', 'c'} {
			for _, major := range []int64{0, 1, 5, 8, 10, 136} {
				for _, minor := range []int64{0, 2, 3, 7, 8, 200, 229} {
					for a := access(1); a <= accessAll; a++ {
						if got, want := run(t, program, kind, major, minor, a), p.allowed(kind, major, minor, a); got != want {
							t.Errorf("%v: %c %d:%d %s: filter %v, policy %v", rules, kind, major, minor, a, got, want)
						}
					}
				}
			}
		}
	}
}

func TestTheKernelVerifiesTheDeviceFilter(t *testing.T) {
	p, err := newPolicy([]specs.LinuxDeviceCgroup{device("b", 8, -1, "r", true)})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := loadDeviceFilter(p.deviceFilter())
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip("bpf(2): ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

func TestParsers(t *testing.T) {
	if got := parseBlkio("8:0 Read 10\n8:0 Write 20\nTotal 30\nx\n"); !reflect.DeepEqual(got, []IOEntry{{8, 0, "Read", 10}, {8, 0, "Write", 20}}) {
		t.Errorf("%v", got)
	}
	bytes, operations := parseIO("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n")
	if fmt.Sprint(bytes, operations) != "[{8 16 Read 1} {8 16 Write 2} {8 16 Discard 5}] [{8 16 Read 3} {8 16 Write 4} {8 16 Discard 6}]" {
		t.Errorf("%v %v", bytes, operations)
	}
	if n, err := parseNumber("max\n"); n != Unlimited || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if _, err := parseNumber("ten"); err == nil {
		t.Error("ten is a number")
	}
	if pids, err := parsePids("0\n7\n8\n"); err != nil || !reflect.DeepEqual(pids, []int{7, 8}) {
		t.Errorf("%v %v", pids, err)
	}
	const some, full = "some avg10=1.50 avg60=0.25 avg300=0.01 total=1234\n", "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"
	if got := parsePressure(some + full); got == nil || *got != (Pressure{Stall{1.5, 0.25, 0.01, 1234}, Stall{Total: 5}}) {
		t.Errorf("%v", got)
	}
	if got := parsePressure(some); got == nil || got.Some.Total != 1234 || parsePressure("") != nil {
		t.Errorf("%v", got)
	}
	if sizeName(64) != "64KB" || sizeName(2048) != "2MB" || sizeName(1<<20) != "1GB" {
		t.Error("page sizes")
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(hybridMounts, hybridOwn)
	f.Add("1 2 3 / /x rw - cgroup2 a b\n", "0::/\n")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		layout, err := detect(mounts, own)
		if err != nil {
			return
		}
		for _, h := range layout.Hierarchies() {
			if !strings.HasPrefix(h.OwnPath, "/") {
				t.Errorf("own path %q", h.OwnPath)
			}
			if strings.HasPrefix(h.Mountpoint, "/") && !strings.HasPrefix(h.dir("../../../x", "id", false), filepath.Clean(h.Mountpoint)) {
				t.Errorf("%+v leaves its mount point", h)
			}
		}
	})
}

func FuzzCgroupFiles(f *testing.F) {
	f.Add("8:0 Read 10\nTotal 1\n8:16 rbytes=1 wios=4\nkey 5\nmax\n7\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseFlat(text)
		parseBlkio(text)
		parsePressure(text)
		parseIO(text)
		parseOwn(text)
		parseNumber(text) //nolint:errcheck // only that it does not panic
		pids, err := parsePids(text)
		if err == nil && slices.ContainsFunc(pids, func(pid int) bool { return pid <= 0 }) {
			t.Errorf("pids %v", pids)
		}
	})
}
