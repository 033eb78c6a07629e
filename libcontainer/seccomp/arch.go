package seccomp

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// arch is one set of system call numbers.
type arch struct {
	name   specs.Arch
	column int    // of the table of calls
	audit  uint32 // struct seccomp_data.arch
	wide   bool   // arguments have 64 bits
}

// x32Bit marks x32's numbers; its calls come with x86-64's audit value.
const x32Bit = 0x40000000

// families lists, native first, what can occur on a kernel.
var families = map[string][]arch{
	"amd64": {
		{specs.ArchX86_64, columnAMD64, unix.AUDIT_ARCH_X86_64, true},
		{specs.ArchX86, column386, unix.AUDIT_ARCH_I386, false},
		{specs.ArchX32, columnX32, unix.AUDIT_ARCH_X86_64, false},
	},
	"arm64": {
		{specs.ArchAARCH64, columnARM64, unix.AUDIT_ARCH_AARCH64, true},
		{specs.ArchARM, columnARM, unix.AUDIT_ARCH_ARM, false},
	},
	"riscv64": {
		{specs.ArchRISCV64, columnRISCV64, unix.AUDIT_ARCH_RISCV64, true},
	},
}

// knownArchs are all names that the spec has.
var knownArchs = []specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
	specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
	specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
	specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// parseArchs returns the native architecture and those of its kin that the
// profile lists. A kernel never sees a call of another one.
func parseArchs(listed []specs.Arch) ([]arch, error) {
	family, ok := families[runtime.GOARCH]
	if !ok {
		return nil, errdefs.NotImplemented.Errorf("seccomp filters for %s", runtime.GOARCH)
	}
	for i, name := range listed {
		if !slices.Contains(knownArchs, name) {
			return nil, invalid(fmt.Sprintf("architectures[%d]", i), "string %s is not a valid arch for seccomp", name)
		}
	}
	archs := family[:1:1]
	for _, a := range family[1:] {
		if slices.Contains(listed, a.name) {
			archs = append(archs, a)
		}
	}
	return archs, nil
}

// Architectures lists the names that Compile has tables for here.
func Architectures() []string {
	var names []string
	for _, a := range families[runtime.GOARCH] {
		names = append(names, string(a.name))
	}
	slices.Sort(names)
	return names
}

// multiplexed is a call that i386 also reaches through socketcall or ipc.
type multiplexed struct {
	direct int // its own number since Linux 4.3 and 5.1; -1 if it has none
	through,
	selector int // number of socketcall or ipc, and what its first argument is then
}

const (
	i386Ipc        = 117
	i386Socketcall = 102
)

// i386Multiplexed explains libseccomp's negative numbers: -100-n is
// socketcall's selector n (linux/net.h), -200-n is ipc's (linux/ipc.h).
func i386Multiplexed(number int) (multiplexed, bool) {
	direct := func() int {
		if n, ok := i386Direct[number]; ok {
			return n
		}
		return -1
	}
	switch {
	case number <= -101 && number >= -120:
		return multiplexed{direct(), i386Socketcall, -100 - number}, true
	case number <= -201 && number >= -224:
		return multiplexed{direct(), i386Ipc, -200 - number}, true
	}
	return multiplexed{}, false
}

// i386Direct are the calls' own numbers, arch/x86/entry/syscalls/syscall_32.tbl.
var i386Direct = map[int]int{
	-101: 359, // socket
	-102: 361, // bind
	-103: 362, // connect
	-104: 363, // listen
	-106: 367, // getsockname
	-107: 368, // getpeername
	-108: 360, // socketpair
	-111: 369, // sendto
	-112: 371, // recvfrom
	-113: 373, // shutdown
	-114: 366, // setsockopt
	-115: 365, // getsockopt
	-116: 370, // sendmsg
	-117: 372, // recvmsg
	-118: 364, // accept4
	-119: 337, // recvmmsg, since 2.6.33
	-120: 345, // sendmmsg, since 3.0
	-202: 393, // semget
	-203: 394, // semctl
	-211: 400, // msgsnd
	-212: 401, // msgrcv
	-213: 399, // msgget
	-214: 402, // msgctl
	-221: 397, // shmat
	-222: 398, // shmdt
	-223: 395, // shmget
	-224: 396, // shmctl
}
