package spec

import (
	"slices"
	"strings"

	apicontainer "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// defaultCapabilities are Docker's, in its order.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capabilityNames is indexed by number, see capabilities(7).
var capabilityNames = [unix.CAP_LAST_CAP + 1]string{
	unix.CAP_CHOWN: "CAP_CHOWN", unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE",
	unix.CAP_DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH", unix.CAP_FOWNER: "CAP_FOWNER",
	unix.CAP_FSETID: "CAP_FSETID", unix.CAP_KILL: "CAP_KILL", unix.CAP_SETGID: "CAP_SETGID",
	unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETPCAP: "CAP_SETPCAP",
	unix.CAP_LINUX_IMMUTABLE: "CAP_LINUX_IMMUTABLE", unix.CAP_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE",
	unix.CAP_NET_BROADCAST: "CAP_NET_BROADCAST", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN",
	unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_IPC_LOCK: "CAP_IPC_LOCK", unix.CAP_IPC_OWNER: "CAP_IPC_OWNER",
	unix.CAP_SYS_MODULE: "CAP_SYS_MODULE", unix.CAP_SYS_RAWIO: "CAP_SYS_RAWIO",
	unix.CAP_SYS_CHROOT: "CAP_SYS_CHROOT", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
	unix.CAP_SYS_PACCT: "CAP_SYS_PACCT", unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_SYS_BOOT: "CAP_SYS_BOOT",
	unix.CAP_SYS_NICE: "CAP_SYS_NICE", unix.CAP_SYS_RESOURCE: "CAP_SYS_RESOURCE",
	unix.CAP_SYS_TIME: "CAP_SYS_TIME", unix.CAP_SYS_TTY_CONFIG: "CAP_SYS_TTY_CONFIG",
	unix.CAP_MKNOD: "CAP_MKNOD", unix.CAP_LEASE: "CAP_LEASE", unix.CAP_AUDIT_WRITE: "CAP_AUDIT_WRITE",
	unix.CAP_AUDIT_CONTROL: "CAP_AUDIT_CONTROL", unix.CAP_SETFCAP: "CAP_SETFCAP",
	unix.CAP_MAC_OVERRIDE: "CAP_MAC_OVERRIDE", unix.CAP_MAC_ADMIN: "CAP_MAC_ADMIN",
	unix.CAP_SYSLOG: "CAP_SYSLOG", unix.CAP_WAKE_ALARM: "CAP_WAKE_ALARM",
	unix.CAP_BLOCK_SUSPEND: "CAP_BLOCK_SUSPEND", unix.CAP_AUDIT_READ: "CAP_AUDIT_READ",
	unix.CAP_PERFMON: "CAP_PERFMON", unix.CAP_BPF: "CAP_BPF", unix.CAP_CHECKPOINT_RESTORE: "CAP_CHECKPOINT_RESTORE",
}

const allCapabilities = "ALL"

// AllCapabilities is every one that this source knows.
func AllCapabilities() []string { return slices.Clone(capabilityNames[:]) }

// CheckCapabilities says whether cap-add and cap-drop name capabilities.
func CheckCapabilities(host *apicontainer.HostConfig) error {
	_, err := capabilities(host)
	return err
}

// capabilities are the defaults (or with ALL every one), less what is dropped,
// plus what is added. As in Docker what is both dropped and added is there.
func capabilities(host *apicontainer.HostConfig) ([]string, error) {
	add, err := normalize("CapAdd", host.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := normalize("CapDrop", host.CapDrop)
	if err != nil {
		return nil, err
	}
	var caps []string
	switch {
	case host.Privileged:
		return AllCapabilities(), nil
	case slices.Contains(add, allCapabilities):
		caps = without(AllCapabilities(), drop)
	case slices.Contains(drop, allCapabilities):
	default:
		caps = without(defaultCapabilities, drop)
	}
	for _, name := range add {
		if name != allCapabilities && !slices.Contains(caps, name) {
			caps = append(caps, name)
		}
	}
	return caps, nil
}

func without(caps, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(caps), func(name string) bool { return slices.Contains(drop, name) })
}

// normalize gives names their prefix and refuses those that are none.
func normalize(field string, names []string) ([]string, error) {
	var normal []string
	for _, name := range names {
		full := strings.ToUpper(name)
		if full != allCapabilities && !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if full != allCapabilities && !slices.Contains(capabilityNames[:], full) {
			return nil, errdefs.InvalidArgument.Errorf("invalid %s: unknown capability: %q", field, full)
		}
		normal = append(normal, full)
	}
	return normal, nil
}
