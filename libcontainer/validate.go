package libcontainer

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// cloneFlags are the namespaces of the spec.
var cloneFlags = map[specs.LinuxNamespaceType]uint64{
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// invalid is an error about a field of the spec.
func invalid(field, format string, args ...any) error {
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "invalid spec: %s: %w", field, fmt.Errorf(format, args...))
}

// validate checks the spec once, before anything is made. Everything after it
// may rely on Process, Root and Linux being there.
func validate(spec *specs.Spec) error {
	if major, _, _ := strings.Cut(spec.Version, "."); spec.Version != "" && major != "1" {
		return invalid("ociVersion", "expected a version 1.x of the runtime spec, got %q", spec.Version)
	}
	if spec.Root == nil || spec.Root.Path == "" {
		return invalid("root.path", "expected a directory, got none")
	}
	if spec.Linux == nil {
		return invalid("linux", "expected a Linux container, got none")
	}
	if spec.Process == nil {
		return invalid("process", "expected a process, got none")
	}
	for _, check := range []func(*specs.Spec) error{
		checkNamespaces, checkUserMappings, checkTime, checkNames, checkMounts, checkDevices, checkSysctls, checkPaths, checkHooks,
		checkMemoryPolicy, checkResctrl, checkNetDevices, checkHostMounts,
	} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return validateProcess(spec.Process, "process")
}

// namespace returns the entry of a type, or nil.
func namespace(spec *specs.Spec, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range spec.Linux.Namespaces {
		if spec.Linux.Namespaces[i].Type == kind {
			return &spec.Linux.Namespaces[i]
		}
	}
	return nil
}

// private reports whether the container does not share the host's namespace.
func private(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	return namespace(spec, kind) != nil
}

func checkNamespaces(spec *specs.Spec) error {
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range spec.Linux.Namespaces {
		field := fmt.Sprintf("linux.namespaces[%d]", i)
		if _, known := cloneFlags[ns.Type]; !known {
			return invalid(field+".type", "expected a kind of namespace, got %q", ns.Type)
		}
		if seen[ns.Type] {
			return invalid(field+".type", "malformed spec file: duplicated ns %q", ns.Type)
		}
		if ns.Path != "" && !filepath.IsAbs(ns.Path) {
			return invalid(field+".path", "expected an absolute path, got %q", ns.Path)
		}
		seen[ns.Type] = true
	}
	return nil
}

// checkUserMappings: a new user namespace has maps. Without one they mean nothing,
// as in runc.
func checkUserMappings(spec *specs.Spec) error {
	user := namespace(spec, specs.UserNamespace)
	switch {
	case user == nil:
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = nil, nil
	case user.Path != "":
		return nil // it has its maps; runc ignores those of the spec, too
	case len(spec.Linux.UIDMappings) == 0:
		return invalid("linux.uidMappings", "user namespaces enabled, but no uid mappings found")
	case len(spec.Linux.GIDMappings) == 0:
		return invalid("linux.gidMappings", "user namespaces enabled, but no gid mappings found")
	}
	return cmp.Or(checkIDMap("linux.uidMappings", spec.Linux.UIDMappings), checkIDMap("linux.gidMappings", spec.Linux.GIDMappings))
}

const maxIDMap = 340 // UID_GID_MAP_MAX_EXTENTS, 4.15

// checkIDMap: what the kernel refuses without saying which line (user_namespaces(7)).
func checkIDMap(field string, list []specs.LinuxIDMapping) error {
	overlap := func(a, b, sizeA, sizeB uint32) bool {
		return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
	}
	if len(list) > maxIDMap {
		return invalid(field, "expected at most %d entries, got %d", maxIDMap, len(list))
	}
	for i, m := range list {
		field := fmt.Sprintf("%s[%d]", field, i)
		if m.Size == 0 {
			return invalid(field+".size", "expected 1 or more, got 0")
		}
		if uint64(m.ContainerID)+uint64(m.Size) > noID || uint64(m.HostID)+uint64(m.Size) > noID {
			return invalid(field+".size", "expected ids below %d, got %d from %d to %d", uint32(noID), m.Size, m.ContainerID, m.HostID)
		}
		for _, other := range list[:i] {
			if overlap(m.ContainerID, other.ContainerID, m.Size, other.Size) || overlap(m.HostID, other.HostID, m.Size, other.Size) {
				return invalid(field, "expected ids that no other entry has, got %d to %d for %d", m.ContainerID, m.HostID, m.Size)
			}
		}
	}
	return nil
}

// checkMapped: who the process is must be in a new user namespace's maps. The texts
// are runc's.
func checkMapped(spec *specs.Spec, p *specs.Process) error {
	if user := namespace(spec, specs.UserNamespace); user == nil || user.Path != "" {
		return nil
	}
	mapped := func(list []specs.LinuxIDMapping, id uint32) bool {
		return slices.ContainsFunc(list, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size })
	}
	if !mapped(spec.Linux.UIDMappings, p.User.UID) {
		return invalid("process.user.uid", "cannot setuid to unmapped uid %d in user namespace", p.User.UID)
	}
	if !mapped(spec.Linux.GIDMappings, p.User.GID) {
		return invalid("process.user.gid", "cannot setgid to unmapped gid %d in user namespace", p.User.GID)
	}
	for _, gid := range p.User.AdditionalGids {
		if !mapped(spec.Linux.GIDMappings, gid) {
			return invalid("process.user.additionalGids", "cannot set unmapped gid %d in user namespace", gid)
		}
	}
	return nil
}

// checkTime: offsets are for a new time namespace.
func checkTime(spec *specs.Spec) error {
	time := namespace(spec, specs.TimeNamespace)
	if len(spec.Linux.TimeOffsets) > 0 && (time == nil || time.Path != "") {
		return invalid("linux.timeOffsets", "time namespace offsets specified, but there is no new time namespace")
	}
	for clock := range spec.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return invalid("linux.timeOffsets."+clock, "expected monotonic or boottime")
		}
	}
	return nil
}

func checkNames(spec *specs.Spec) error {
	if spec.Hostname != "" && !private(spec, specs.UTSNamespace) {
		return invalid("hostname", "unable to set hostname without a private UTS namespace")
	}
	if spec.Domainname != "" && !private(spec, specs.UTSNamespace) {
		return invalid("domainname", "unable to set domainname without a private UTS namespace")
	}
	return nil
}

func checkMounts(spec *specs.Spec) error {
	for i, m := range spec.Mounts {
		field := fmt.Sprintf("mounts[%d].destination", i)
		switch {
		case m.Destination == "":
			return invalid(field, "expected a path, got none")
		case filepath.Join("/", m.Destination) == "/":
			return invalid(field, "expected a path below /, got %q", m.Destination)
		}
		if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
			continue
		}
		if err := cmp.Or(checkIDMap(fmt.Sprintf("mounts[%d].uidMappings", i), m.UIDMappings), checkIDMap(fmt.Sprintf("mounts[%d].gidMappings", i), m.GIDMappings)); err != nil {
			return err
		}
	}
	return nil
}

func checkDevices(spec *specs.Spec) error {
	for i, d := range spec.Linux.Devices {
		field := fmt.Sprintf("linux.devices[%d]", i)
		if !slices.Contains([]string{"b", "c", "u", "p"}, d.Type) {
			return invalid(field+".type", "expected b, c, u or p, got %q", d.Type)
		}
		if filepath.Join("/", d.Path) == "/" {
			return invalid(field+".path", "expected a path below /, got %q", d.Path)
		}
		if d.Type == "p" {
			continue
		}
		// What the kernel has room for, MKDEV of linux/kdev_t.h.
		if d.Major < 0 || d.Major > 1<<12-1 {
			return invalid(field+".major", "expected 0 to 4095, got %d", d.Major)
		}
		if d.Minor < 0 || d.Minor > 1<<20-1 {
			return invalid(field+".minor", "expected 0 to 1048575, got %d", d.Minor)
		}
	}
	return nil
}

// sysctlNamespace says which namespace a sysctl belongs to; "" is the host's.
func sysctlNamespace(key string) specs.LinuxNamespaceType {
	switch key {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return specs.IPCNamespace
	case "kernel.domainname":
		return specs.UTSNamespace
	}
	switch {
	case strings.HasPrefix(key, "fs.mqueue."):
		return specs.IPCNamespace
	case strings.HasPrefix(key, "net."):
		return specs.NetworkNamespace
	case strings.HasPrefix(key, "user."):
		return specs.UserNamespace
	}
	return ""
}

// isHosts reports whether the namespace that the spec names is the one we are in.
func isHosts(spec *specs.Spec, kind specs.LinuxNamespaceType) bool {
	path := namespace(spec, kind).Path
	if path == "" {
		return false
	}
	theirs, err := os.Stat(path)
	if err != nil {
		return false // joining it says what is wrong
	}
	ours, err := os.Stat("/proc/self/ns/" + namespaceFiles[kind])
	return err == nil && os.SameFile(ours, theirs)
}

// checkSysctls: only those that are the container's own. hostname has a field.
func checkSysctls(spec *specs.Spec) error {
	for key := range spec.Linux.Sysctl {
		field := "linux.sysctl." + key
		name := strings.ReplaceAll(key, "/", ".")
		kind := sysctlNamespace(name)
		switch {
		case name == "kernel.hostname":
			return invalid(field, "sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
		case kind == "" || !private(spec, kind):
			return invalid(field, "sysctl %q is not in a separate kernel namespace", key)
		case isHosts(spec, kind):
			return invalid(field, "sysctl %q not allowed in host %s namespace", key, kind)
		case strings.Contains(sysctlPath(key), ".."):
			return invalid(field, "expected the name of a sysctl, got %q", key)
		}
	}
	return nil
}

// checkPaths: masks and read-only paths, and what else names a mode.
func checkPaths(spec *specs.Spec) error {
	for field, paths := range map[string][]string{"maskedPaths": spec.Linux.MaskedPaths, "readonlyPaths": spec.Linux.ReadonlyPaths} {
		for i, p := range paths {
			if !filepath.IsAbs(p) {
				return invalid(fmt.Sprintf("linux.%s[%d]", field, i), "expected an absolute path, got %q", p)
			}
			if field == "maskedPaths" && filepath.Clean(p) == "/" {
				return invalid(fmt.Sprintf("linux.%s[%d]", field, i), "expected a path below /, got %q", p)
			}
		}
	}
	if p := spec.Linux.Personality; p != nil && p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
		return invalid("linux.personality.domain", "expected LINUX or LINUX32, got %q", p.Domain)
	}
	if p := spec.Linux.Personality; p != nil && len(p.Flags) > 0 {
		return invalid("linux.personality.flags", "expected none, the spec defines no flags, got %q", p.Flags)
	}
	switch spec.Linux.RootfsPropagation {
	case "", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable":
		return nil
	}
	return invalid("linux.rootfsPropagation", "expected private, slave, shared or unbindable, or one of them with r, got %q", spec.Linux.RootfsPropagation)
}

// noID is nobody's: to the system calls that set ids it says that one stays
// (setresuid(2)), which here is root's.
const noID = math.MaxUint32

// validateProcess checks a process, of the spec or of exec.
func validateProcess(p *specs.Process, field string) error {
	switch {
	case len(p.Args) == 0:
		return invalid(field+".args", "args must not be empty")
	case p.Cwd == "":
		return invalid(field+".cwd", "Cwd property must not be empty")
	case !filepath.IsAbs(p.Cwd):
		return invalid(field+".cwd", "Cwd must be an absolute path, got %q", p.Cwd)
	case p.Scheduler != nil && !hasKey(schedulerPolicies, p.Scheduler.Policy):
		return invalid(field+".scheduler.policy", "expected a policy as SCHED_BATCH, got %q", p.Scheduler.Policy)
	case p.Scheduler != nil && slices.ContainsFunc(p.Scheduler.Flags, func(f specs.LinuxSchedulerFlag) bool { return !hasKey(schedulerFlags, f) }):
		return invalid(field+".scheduler.flags", "expected flags as SCHED_FLAG_RESET_ON_FORK, got %q", p.Scheduler.Flags)
	case p.Scheduler != nil && (p.Scheduler.Nice < -20 || p.Scheduler.Nice > 19):
		return invalid(field+".scheduler.nice", "expected -20 to 19, got %d", p.Scheduler.Nice)
	case p.IOPriority != nil && (p.IOPriority.Priority < 0 || p.IOPriority.Priority > 7):
		return invalid(field+".ioPriority.priority", "expected 0 to 7, got %d", p.IOPriority.Priority)
	case p.IOPriority != nil && !hasKey(ioClasses, p.IOPriority.Class):
		return invalid(field+".ioPriority.class", "expected a class as IOPRIO_CLASS_BE, got %q", p.IOPriority.Class)
	case p.User.UID == noID:
		return invalid(field+".user.uid", "cannot setuid to unmapped uid %d", p.User.UID)
	case p.User.GID == noID:
		return invalid(field+".user.gid", "cannot setgid to unmapped gid %d", p.User.GID)
	case slices.Contains(p.User.AdditionalGids, noID):
		return invalid(field+".user.additionalGids", "cannot set unmapped gid %d", noID)
	case p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000):
		return invalid(field+".oomScoreAdj", "expected -1000 to 1000, got %d", *p.OOMScoreAdj)
	}
	for i, entry := range p.Env {
		if !strings.Contains(entry, "=") {
			return invalid(fmt.Sprintf("%s.env[%d]", field, i), "invalid environment variable: missing '=' in %q", entry)
		}
	}
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		name := fmt.Sprintf("%s.rlimits[%d].type", field, i)
		if _, known := rlimits[r.Type]; !known {
			return invalid(name, "expected a limit as RLIMIT_NOFILE, got %q", r.Type)
		}
		if seen[r.Type] {
			return invalid(name, "duplicated %q", r.Type)
		}
		seen[r.Type] = true
	}
	return nil
}

func hasKey[K comparable, V any](table map[K]V, key K) bool {
	_, ok := table[key]
	return ok
}
