package seccomp

import (
	"encoding/binary"
	"fmt"

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

// Flags lists the names of the flags that Compile knows and the kernel has.
func Flags() []string {
	return []string{
		"SECCOMP_FILTER_FLAG_TSYNC", string(specs.LinuxSeccompFlagSpecAllow),
		string(specs.LinuxSeccompFlagLog), string(specs.LinuxSeccompFlagWaitKillableRecv),
	}
}

func invalid(field, format string, args ...any) error {
	field = "linux.seccomp." + field
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "%s: %w", field, fmt.Errorf(format, args...))
}
