package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Filter is a compiled profile.
type Filter struct {
	Program []byte // array of struct sock_filter, little endian
	Flags   uint   // SECCOMP_FILTER_FLAG_* for seccomp(2); NEW_LISTENER is the caller's, by Notify
	Notify  bool   // some rule notifies: the listener's descriptor goes to ListenerPath
}

// maxInstructions is the kernel's limit, BPF_MAXINSNS.
const maxInstructions = 4096

// Compile turns a profile into a filter for this machine.
func Compile(profile *specs.LinuxSeccomp) (Filter, error) {
	var filter Filter
	p, err := parse(profile)
	if err != nil {
		return filter, err
	}
	if profile.Flags == nil { // as in runc: the kernel's mitigation costs the process more than it gains
		filter.Flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	for _, flag := range profile.Flags {
		bit, ok := flagBits[flag]
		if !ok {
			return filter, invalid("flags", "seccomp flag %q not supported", flag)
		}
		filter.Flags |= bit
	}
	program := assemble(layOut(p))
	if len(program) > maxInstructions {
		return filter, invalid("syscalls", "the filter has %d instructions, the kernel takes %d", len(program), maxInstructions)
	}
	filter.Program = make([]byte, 0, 8*len(program))
	for _, i := range program {
		filter.Program = binary.LittleEndian.AppendUint16(filter.Program, i.Code)
		filter.Program = append(filter.Program, i.Jt, i.Jf)
		filter.Program = binary.LittleEndian.AppendUint32(filter.Program, i.K)
	}
	filter.Notify = p.notify
	return filter, nil
}

// flagBits are seccomp(2)'s. TSYNC changes nothing for a process with one thread.
var flagBits = map[specs.LinuxSeccompFlag]uint{
	specs.LinuxSeccompFlagLog:              unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow:        unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
	specs.LinuxSeccompFlagWaitKillableRecv: unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
	"SECCOMP_FILTER_FLAG_TSYNC":            0,
}

// Actions lists the spec's actions.
func Actions() []string {
	var names []string
	for action := range actionVerdicts {
		names = append(names, string(action))
	}
	slices.Sort(names)
	return names
}

// Operators lists the spec's comparisons.
func Operators() []string {
	var names []string
	for op := range comparisons {
		names = append(names, string(op))
	}
	slices.Sort(names)
	return names
}

// Flags lists the flags that Compile knows.
func Flags() []string {
	var names []string
	for flag := range flagBits {
		names = append(names, string(flag))
	}
	slices.Sort(names)
	return names
}

// SupportedFlags lists those that the kernel has too: asked with a filter at
// address 0, it answers EFAULT to a flag that it knows, EINVAL to another
// (seccomp(2)).
func SupportedFlags() []string {
	return slices.DeleteFunc(Flags(), func(name string) bool {
		bit := flagBits[specs.LinuxSeccompFlag(name)]
		if bit == unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
			bit |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER // it is about a listener
		}
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(bit), 0)
		return errno != unix.EFAULT
	})
}

func invalid(field, format string, args ...any) error {
	field = "linux.seccomp." + field
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "%s: %w", field, fmt.Errorf(format, args...))
}
