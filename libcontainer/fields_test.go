package libcontainer

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/seccomp"
)

// fieldTable says for every field of the spec that is for Linux how it is
// honoured, and is checked: a field of a newer spec that nobody thought of
// fails the test, and so does a row that is not true.
//
//	plan      a value changes the plan of the process
//	cgroup    a value is written to the cgroup: without a cgroup it is missed
//	seccomp   a value changes the compiled filter
//	refused   a value is an error that names the field
//	carried   it is information, which state and hooks are given
//	TestXxx   that test shows it
//	: REASON  not for this runtime; why
var fieldTable = map[string]string{
	"ociVersion": "TestValidateNamesTheField", "annotations": "TestHooksRunInOrderWithTheState",
	"solaris": ": another platform's", "windows": ": another platform's", "vm": ": another platform's", "zos": ": another platform's", "freebsd": ": another platform's",

	"process.terminal": "TestTerminalIsNotTakenFromTheImage", "process.consoleSize.height": "TestPlans", "process.consoleSize.width": "TestPlans",
	"process.user.uid": "plan", "process.user.gid": "plan", "process.user.umask": "plan", "process.user.additionalGids": "plan",
	"process.args": "plan", "process.env": "plan", "process.cwd": "plan", "process.noNewPrivileges": "plan",
	"process.capabilities.bounding": "plan", "process.capabilities.effective": "plan", "process.capabilities.inheritable": "plan",
	"process.capabilities.permitted": "plan", "process.capabilities.ambient": "TestPlans",
	"process.rlimits.type": "refused", "process.rlimits.hard": "plan", "process.rlimits.soft": "plan",
	"process.apparmorProfile": "TestPlans", "process.selinuxLabel": "plan", "process.oomScoreAdj": "plan",
	"process.scheduler.policy": "refused", "process.scheduler.flags": "refused", "process.scheduler.nice": "plan", "process.scheduler.priority": "plan",
	"process.scheduler.runtime": "plan", "process.scheduler.deadline": "plan", "process.scheduler.period": "plan",
	"process.ioPriority.class": "refused", "process.ioPriority.priority": "plan",
	"process.execCPUAffinity.initial": "TestExecHasItsCPUs", "process.execCPUAffinity.final": "TestExecHasItsCPUs",

	"root.path": "TestRunPassesOutputAndStatus", "root.readonly": "plan", "hostname": "plan", "domainname": "plan",
	"mounts.destination": "plan", "mounts.type": "plan", "mounts.source": "plan", "mounts.options": "plan",
	"mounts.uidMappings.containerID": "TestBindsHaveIDMaps", "mounts.uidMappings.hostID": "TestBindsHaveIDMaps", "mounts.uidMappings.size": "TestBindsHaveIDMaps",
	"mounts.gidMappings.containerID": "TestBindsHaveIDMaps", "mounts.gidMappings.hostID": "TestBindsHaveIDMaps", "mounts.gidMappings.size": "TestBindsHaveIDMaps",

	"linux.uidMappings.containerID": "TestUserNamespaceMapsIDs", "linux.uidMappings.hostID": "TestUserNamespaceMapsIDs", "linux.uidMappings.size": "TestUserNamespaceMapsIDs",
	"linux.gidMappings.containerID": "TestUserNamespaceMapsIDs", "linux.gidMappings.hostID": "TestUserNamespaceMapsIDs", "linux.gidMappings.size": "TestUserNamespaceMapsIDs",
	"linux.sysctl": "plan", "linux.cgroupsPath": "TestRunPassesOutputAndStatus",
	"linux.namespaces.type": "refused", "linux.namespaces.path": "refused",
	"linux.devices.path": "plan", "linux.devices.type": "refused", "linux.devices.major": "plan", "linux.devices.minor": "plan",
	"linux.devices.fileMode": "plan", "linux.devices.uid": "plan", "linux.devices.gid": "plan",
	"linux.netDevices.name": "TestNetworkDevicesMoveAndComeBack", "linux.rootfsPropagation": "plan",
	"linux.maskedPaths": "plan", "linux.readonlyPaths": "plan", "linux.mountLabel": "TestPlans",
	"linux.intelRdt.closID": "refused", "linux.intelRdt.schemata": "refused", "linux.intelRdt.l3CacheSchema": "refused", "linux.intelRdt.memBwSchema": "refused",
	"linux.intelRdt.enableMonitoring": "TestAGroupThatWasThereIsWrittenAndStays",
	"linux.memoryPolicy.mode":         "refused", "linux.memoryPolicy.nodes": "plan", "linux.memoryPolicy.flags": "refused",
	"linux.personality.domain": "refused", "linux.personality.flags": "refused",
	"linux.timeOffsets.secs": "TestTimeNamespaceHasItsOffsets", "linux.timeOffsets.nanosecs": "TestTimeNamespaceHasItsOffsets",

	"linux.resources.devices.allow": "TestDeviceFilterMeansThePolicy", "linux.resources.devices.type": "TestDeviceFilterMeansThePolicy", "linux.resources.devices.major": "TestDeviceFilterMeansThePolicy",
	"linux.resources.devices.minor": "TestDeviceFilterMeansThePolicy", "linux.resources.devices.access": "TestDeviceFilterMeansThePolicy",
	"linux.resources.memory.limit": "cgroup", "linux.resources.memory.reservation": "cgroup", "linux.resources.memory.swap": "cgroup", "linux.resources.memory.kernelTCP": "cgroup",
	"linux.resources.memory.swappiness": "cgroup", "linux.resources.memory.disableOOMKiller": "cgroup",
	"linux.resources.memory.kernel":            ": the kernel dropped it in 5.16, runc ignores it",
	"linux.resources.memory.useHierarchy":      ": a hierarchy is always accounted for (5.11)",
	"linux.resources.memory.checkBeforeUpdate": "TestRefusedBeforeTheKernelSeesIt",
	"linux.resources.cpu.shares":               "cgroup", "linux.resources.cpu.quota": "cgroup", "linux.resources.cpu.burst": "cgroup", "linux.resources.cpu.period": "cgroup",
	"linux.resources.cpu.realtimeRuntime": "cgroup", "linux.resources.cpu.realtimePeriod": "cgroup", "linux.resources.cpu.cpus": "cgroup", "linux.resources.cpu.mems": "cgroup", "linux.resources.cpu.idle": "cgroup",
	"linux.resources.pids.limit": "cgroup", "linux.resources.blockIO.weight": "cgroup", "linux.resources.blockIO.leafWeight": "cgroup",
	"linux.resources.blockIO.weightDevice.weight": "cgroup", "linux.resources.blockIO.weightDevice.leafWeight": "cgroup",
	"linux.resources.blockIO.throttleReadBpsDevice.rate": "cgroup", "linux.resources.blockIO.throttleWriteBpsDevice.rate": "cgroup",
	"linux.resources.blockIO.throttleReadIOPSDevice.rate": "cgroup", "linux.resources.blockIO.throttleWriteIOPSDevice.rate": "cgroup",
	"linux.resources.hugepageLimits.pageSize": "TestV2WritesOfASpec", "linux.resources.hugepageLimits.limit": "cgroup",
	"linux.resources.network.classID": "cgroup", "linux.resources.network.priorities.name": "cgroup", "linux.resources.network.priorities.priority": "cgroup",
	"linux.resources.rdma.hcaHandles": "cgroup", "linux.resources.rdma.hcaObjects": "cgroup", "linux.resources.unified": "cgroup",

	"linux.seccomp.defaultAction": "seccomp", "linux.seccomp.defaultErrnoRet": "seccomp", "linux.seccomp.architectures": "seccomp", "linux.seccomp.flags": "seccomp",
	"linux.seccomp.listenerPath": "TestSeccompAgentGetsTheListener", "linux.seccomp.listenerMetadata": "TestSeccompAgentGetsTheListener",
	"linux.seccomp.syscalls.names": "seccomp", "linux.seccomp.syscalls.action": "seccomp", "linux.seccomp.syscalls.errnoRet": "seccomp",
	"linux.seccomp.syscalls.args.index": "seccomp", "linux.seccomp.syscalls.args.value": "seccomp", "linux.seccomp.syscalls.args.valueTwo": "seccomp", "linux.seccomp.syscalls.args.op": "seccomp",
}

// repeated are fields that are the same in each place where they occur.
var repeated = regexp.MustCompile(`^hooks\.\w+\.(path|args|env|timeout)$|^linux\.resources\.blockIO\.\w+\.(major|minor)$`)

// leaves calls visit with the JSON path of every field for Linux, and a
// function that sets it to something.
func leaves(kind reflect.Type, path string, visit func(string)) {
	switch kind.Kind() {
	case reflect.Pointer, reflect.Slice:
		leaves(kind.Elem(), path, visit)
	case reflect.Map:
		if kind.Elem().Kind() == reflect.Struct {
			leaves(kind.Elem(), path, visit)
			return
		}
		visit(path)
	case reflect.Struct:
		for i := range kind.NumField() {
			field := kind.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			platform := field.Tag.Get("platform")
			if platform != "" && !strings.Contains(platform, "linux") && path != "" {
				continue
			}
			inner := strings.TrimPrefix(path+"."+name, ".")
			if field.Anonymous {
				inner = path
			}
			if platform != "" && !strings.Contains(platform, "linux") {
				visit(inner)
				continue
			}
			leaves(field.Type, inner, visit)
		}
	default:
		visit(path)
	}
}

func TestEveryFieldIsHonouredOrRefused(t *testing.T) {
	tests := testNames(t)
	seen := map[string]bool{}
	leaves(reflect.TypeFor[specs.Spec](), "", func(path string) {
		seen[path] = true
		how, listed := fieldTable[path]
		switch {
		case repeated.MatchString(path):
		case !listed:
			t.Errorf("%s: neither honoured nor refused", path)
		case strings.HasPrefix(how, "Test"):
			if !slices.Contains(tests, how) {
				t.Errorf("%s: there is no %s", path, how)
			}
		case how == "plan":
			changesPlan(t, path)
		case how == "refused":
			isRefused(t, path)
		case how == "cgroup":
			reachesCgroup(t, path)
		case how == "seccomp":
			changesFilter(t, path)
		case !strings.HasPrefix(how, ": "):
			t.Errorf("%s: %q is not how", path, how)
		}
	})
	for path := range fieldTable {
		if !seen[path] {
			t.Errorf("%s is in the table, but not in the spec", path)
		}
	}
}

// testNames lists the tests of this package and those below it.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, below...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllSubmatch(text, -1) {
			names = append(names, string(found[1]))
		}
	}
	return names
}

// fullSpec has something in every part, so that a field can be changed alone.
func fullSpec() *specs.Spec {
	s := baseSpec()
	id, zero := uint32(1), 0
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 1, Hard: 1}}
	s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE}
	s.Process.OOMScoreAdj = &zero
	s.Process.User.Umask, s.Process.User.AdditionalGids = &id, []uint32{1}
	s.Mounts[3].Destination = "/sys"
	mode := os.FileMode(0o600)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "c", FileMode: &mode, UID: &id, GID: &id}}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = []string{"/a"}, []string{"/b"}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "0"}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux, Flags: []specs.LinuxPersonalityFlag{}}
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{}
	s.Linux.RootfsPropagation = "private"
	return s
}

// alter sets the field at a JSON path to another value; text is for strings.
// Slices get one element, which is altered, maps a key.
func alter(value reflect.Value, path []string, text string) {
	switch value.Kind() {
	case reflect.Pointer:
		if value.IsNil() {
			value.Set(reflect.New(value.Type().Elem()))
		}
		alter(value.Elem(), path, text)
	case reflect.Slice:
		if value.Len() == 0 {
			value.Set(reflect.MakeSlice(value.Type(), 1, 1))
		}
		alter(value.Index(value.Len()-1), path, text)
	case reflect.Map:
		element := reflect.New(value.Type().Elem()).Elem()
		alter(element, path, text)
		value.Set(reflect.MakeMap(value.Type()))
		value.SetMapIndex(reflect.ValueOf("net.ipv4.ip_forward"), element)
	case reflect.Struct:
		for i := range value.NumField() {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			if name == path[0] {
				alter(value.Field(i), path[1:], text)
			}
		}
	case reflect.String:
		value.SetString(text)
	case reflect.Bool:
		value.SetBool(!value.Bool())
	case reflect.Int, reflect.Int32, reflect.Int64:
		value.SetInt(value.Int() + 3)
	default:
		value.SetUint(value.Uint() + 3)
	}
}

func altered(path, text string) *specs.Spec {
	s := fullSpec()
	alter(reflect.ValueOf(s).Elem(), strings.Split(path, "."), text)
	return s
}

// planValues are strings that mean something where "x" does not.
var planValues = map[string]string{
	"process.cwd": "/x", "linux.maskedPaths": "/x", "linux.readonlyPaths": "/x", "linux.devices.path": "/dev/y", "linux.memoryPolicy.nodes": "0-1",
	"linux.rootfsPropagation": "rslave", "process.capabilities.bounding": "CAP_CHOWN", "process.capabilities.effective": "CAP_CHOWN",
	"process.capabilities.permitted": "CAP_CHOWN", "process.capabilities.inheritable": "CAP_CHOWN",
}

func changesPlan(t *testing.T, path string) {
	t.Helper()
	text, ok := planValues[path]
	if !ok {
		text = "x"
	}
	compiled := func(s *specs.Spec) string {
		f := fixedFacts()
		plan, err := compilePlan(s, f)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return ""
		}
		encoded, err := plan.Encode() // also what is not printed, as a scheduler's numbers
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return string(encoded)
	}
	if compiled(altered(path, text)) == compiled(fullSpec()) {
		t.Errorf("%s: a change of it does not change the plan", path)
	}
}

func isRefused(t *testing.T, path string) {
	t.Helper()
	parts := strings.Split(path, ".")
	err := validate(altered(path, "no/such\nthing"))
	if err == nil || !strings.Contains(err.Error(), parts[len(parts)-1]) {
		t.Errorf("%s: nonsense in it gives %v", path, err)
	}
}

// reachesCgroup: in a cgroup that has no files the one that the field is
// written to is missed, on v1 or on v2.
func reachesCgroup(t *testing.T, path string) {
	t.Helper()
	s := baseSpec()
	alter(reflect.ValueOf(s).Elem(), strings.Split(path, "."), "1")
	empty := t.TempDir()
	v1 := map[string]string{}
	for _, controller := range []string{"memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls", "net_prio", "rdma"} {
		v1[controller] = empty
	}
	if cgroup.At(cgroup.Location{V1: v1}).Update(t.Context(), s.Linux.Resources) == nil && cgroup.At(cgroup.Location{V2: empty}).Update(t.Context(), s.Linux.Resources) == nil {
		t.Errorf("%s: nothing is written for it", path)
	}
}

func changesFilter(t *testing.T, path string) {
	t.Helper()
	profile := func() *specs.Spec {
		s := baseSpec()
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: pointerTo(uint(1)), Architectures: []specs.Arch{specs.ArchX86}, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: pointerTo(uint(2)),
				Args: []specs.LinuxSeccompArg{{Op: specs.OpMaskedEqual, Value: 7, ValueTwo: 4}}}}}
		return s
	}
	text := map[string]string{"defaultAction": "SCMP_ACT_ALLOW", "architectures": "SCMP_ARCH_X32", "names": "write", "action": "SCMP_ACT_ALLOW", "op": "SCMP_CMP_NE", "flags": "SECCOMP_FILTER_FLAG_SPEC_ALLOW"}
	parts := strings.Split(path, ".")
	s := profile()
	alter(reflect.ValueOf(s).Elem(), parts, text[parts[len(parts)-1]])
	if strings.HasPrefix(path, "linux.seccomp.syscalls.action") {
		s.Linux.Seccomp.Syscalls[0].ErrnoRet = nil
	}
	if s.Linux.Seccomp.DefaultAction == specs.ActAllow {
		s.Linux.Seccomp.DefaultErrnoRet = nil
	}
	before, err := seccomp.Compile(profile().Linux.Seccomp)
	if err != nil {
		t.Skipf("no filters here: %v", err)
	}
	after, err := seccomp.Compile(s.Linux.Seccomp)
	if err == nil && reflect.DeepEqual(before, after) {
		t.Errorf("%s: a change of it does not change the filter (%v)", path, err)
	}
}

func pointerTo[T any](value T) *T { return &value }
