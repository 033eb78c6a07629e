package rootfs

import (
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/nsenter"
)

// procMounts may be bound over: lxcfs emulates them per container. Anything
// else in /proc could fake what the runtime or its tools read there.
var procMounts = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
	"/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// mount adds the i-th mount of the spec.
func (b *builder) mount(i int) error {
	m := &b.spec.Mounts[i]
	field := fmt.Sprintf("mounts[%d]", i)
	o := parseOptions(m.Options)
	if err := b.checkMaps(field, m, &o); err != nil {
		return err
	}
	if o.copyUp && m.Type != "tmpfs" {
		return invalid(field+".options", "tmpcopyup is for a tmpfs, got %q", m.Type)
	}
	destination := clean(m.Destination)
	if err := b.checkProc(field, destination, m, &o); err != nil {
		return err
	}
	switch {
	case isBind(m, &o):
		return b.bind(i, destination, m, &o)
	case m.Type == "cgroup" && b.host.CgroupMode != cgroup.V2:
		b.cgroupV1(destination, &o)
		return nil
	case m.Type == "cgroup" && b.cgroupIsForeign(destination):
		b.cgroupBound(destination, &o)
		return nil
	case m.Type == "cgroup":
		return b.fileSystem(destination, "cgroup2", "cgroup", &o)
	}
	return b.fileSystem(destination, m.Type, m.Source, &o)
}

func isBind(m *specs.Mount, o *options) bool {
	return m.Type == "bind" || o.flags&unix.MS_BIND != 0
}

// IsBind reports whether the mount is one; remounting one is not.
func IsBind(m *specs.Mount) bool {
	o := parseOptions(m.Options)
	return isBind(m, &o) && o.flags&unix.MS_REMOUNT == 0
}

// IDMapped reports whether the mount is to have an id map.
func IDMapped(m *specs.Mount) bool {
	o := parseOptions(m.Options)
	return o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0
}

// Recursive reports whether a bind is of the whole tree.
func Recursive(m *specs.Mount) bool {
	o := parseOptions(m.Options)
	return o.flags&unix.MS_REC != 0
}

// RecursivelyMapped reports whether the id map is for the whole tree.
func RecursivelyMapped(m *specs.Mount) bool { return slices.Contains(m.Options, "ridmap") }

// checkMaps: an id map is for binds, and comes from the mount or the container.
func (b *builder) checkMaps(field string, m *specs.Mount, o *options) error {
	switch {
	case !IDMapped(m):
		return nil
	case !isBind(m, o):
		return invalid(field+".uidMappings", "id-mapped mounts are only supported for bind mounts, got %q", m.Type)
	case o.flags&unix.MS_REMOUNT != 0:
		return invalid(field+".options", "a remount cannot change an id map")
	case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
		return invalid(field+".uidMappings", "expected both uidMappings and gidMappings, or none")
	case len(m.UIDMappings) == 0 && !b.userNamespace():
		return invalid(field+".options", "idmap without uidMappings needs a user namespace")
	}
	return nil
}

// checkProc refuses mounts over /proc, by name; the stage refuses those that
// get there by a link.
func (b *builder) checkProc(field, destination string, m *specs.Mount, o *options) error {
	inside := destination == "/proc" || strings.HasPrefix(destination, "/proc/")
	switch {
	case !inside || slices.Contains(procMounts, destination):
		return nil
	case destination == "/proc" && !isBind(m, o) && m.Type == "proc":
		return nil
	case destination == "/proc" && isBind(m, o) && b.host.IsProc(b.source(m)):
		return nil
	case destination == "/proc":
		return invalid(field+".type", "%q cannot be mounted because it is not of type proc", destination)
	}
	return invalid(field+".destination", "%q cannot be mounted because it is inside /proc", destination)
}

// target adds the operation that finds, or makes, the mount point.
func (b *builder) target(destination, fsType string, kind uint64, why string) {
	op := nsenter.Op{Code: nsenter.Target, Text: text(destination), Num: num(kind, 0o755), Why: why}
	switch {
	case fsType == "proc" || fsType == "sysfs":
		// The image could send them to where the runtime does not look
		// for them (CVE-2019-19921, CVE-2023-27561).
		op.Flags |= nsenter.NoSymlinks
	case slices.Contains(procMounts, destination):
		op.Flags |= nsenter.ProcInside | nsenter.NoSymlinks
	}
	b.add(op)
}

// sealedLater is true for a tmpfs, and anything on /dev, that is to be
// read-only: it stays writable until the root is finished. When it was mounted nothing
// was in it, so that rro is ro.
func sealedLater(m *specs.Mount, o *options) bool {
	readonly := o.flags&unix.MS_RDONLY != 0 || o.recursive.set&unix.MOUNT_ATTR_RDONLY != 0
	return readonly && !isBind(m, o) && (m.Type == "tmpfs" || clean(m.Destination) == "/dev")
}

// fileSystem adds a mount that is not a bind.
func (b *builder) fileSystem(destination, fsType, source string, o *options) error {
	why := fmt.Sprintf("error mounting %q to rootfs at %q", source, destination)
	if o.flags&unix.MS_REMOUNT != 0 {
		b.again(destination, fsType, why)
	} else {
		b.target(destination, fsType, nsenter.TargetDirectory, why)
	}
	if fsType == "tmpfs" || destination == "/dev" { // Finish does it, to this mount alone
		now := *o
		now.flags &^= unix.MS_RDONLY
		now.recursive.set &^= unix.MOUNT_ATTR_RDONLY
		o = &now
	}
	op := nsenter.Op{Code: nsenter.Mount, Text: text(source, fsType, strings.Join(b.data(fsType, o), ",")), Num: num(uint64(o.flags)), Why: why}
	if fsType == "tmpfs" && !o.hasMode() {
		op.Flags |= nsenter.KeepMode
	}
	b.add(op)
	if o.copyUp {
		b.add(nsenter.Op{Code: nsenter.CopyUp, Text: text(destination), Why: fmt.Sprintf("tmpcopyup of %q", destination)})
	}
	if len(o.propagation) > 0 || o.recursive != (attrs{}) {
		b.again(destination, fsType, why)
		b.attributes(nsenter.SlotTarget, attrs{}, o, why)
	}
	return nil
}

// data is what the file system reads itself. Those that keep labels get the
// container's; /proc, /sys and mqueue label themselves.
func (b *builder) data(fsType string, o *options) []string {
	switch {
	case b.host.Label == "", fsType == "proc", fsType == "sysfs", fsType == "mqueue", strings.HasPrefix(fsType, "cgroup"):
		return o.data
	}
	return append(slices.Clip(o.data), "context="+strconv.Quote(b.host.Label))
}

// again finds a mount that is there, to set on it what mount(2) could not, or to change
// it. It is on procfs only where it may be, and then no link leads there.
func (b *builder) again(destination, fsType, why string) {
	op := nsenter.Op{Code: nsenter.Target, Text: text(destination), Num: num(nsenter.TargetDirectory, 0o755), Why: why}
	if fsType == "proc" || destination == "/proc" || slices.Contains(procMounts, destination) {
		op.Flags = nsenter.ProcInside | nsenter.NoSymlinks
	}
	b.add(op)
}

// bind adds a bind mount.
func (b *builder) bind(i int, destination string, m *specs.Mount, o *options) error {
	source := b.source(m)
	if o.flags&unix.MS_REMOUNT != 0 {
		b.remount(destination, m, o)
		return nil
	}
	directory, err := b.host.IsDirectory(source)
	if err != nil {
		return fmt.Errorf("error mounting %q to rootfs at %q: %w", source, destination, err)
	}
	if len(o.data) > 0 {
		slog.Warn(fmt.Sprintf("mounts[%d].options: %q are no options of a bind mount and have no effect", i, o.data))
	}
	kind := uint64(nsenter.TargetFile)
	if directory {
		kind = nsenter.TargetDirectory
	}
	why := fmt.Sprintf("error mounting %q to rootfs at %q", source, destination)
	b.target(destination, m.Type, kind, why)
	if fd, opened := b.host.Trees[i]; opened {
		b.add(nsenter.Op{Code: nsenter.Adopt, Num: num(nsenter.SlotTree, uint64(fd)), Why: fmt.Sprintf("the mount of %q", source)})
		b.add(nsenter.Op{Code: nsenter.Attach, Text: text(destination), Why: why})
	} else {
		b.attachTree(source, destination, o.flags&unix.MS_REC != 0, why)
	}
	b.attributes(nsenter.SlotTree, o.attributes(), o, why)
	return nil
}

// remount changes the flags of what is mounted there already.
func (b *builder) remount(destination string, m *specs.Mount, o *options) {
	why := fmt.Sprintf("error remounting %q", destination)
	b.again(destination, m.Type, why)
	b.add(nsenter.Op{Code: nsenter.Mount, Text: text(m.Source, m.Type, strings.Join(o.data, ",")), Num: num(uint64(o.flags | unix.MS_BIND)), Why: why})
	b.attributes(nsenter.SlotTarget, attrs{}, o, why)
}

// attachTree mounts the host's source on the target that was just found.
func (b *builder) attachTree(source, destination string, recursive bool, why string) {
	var flags nsenter.Flag
	if recursive {
		flags = nsenter.Recursive
	}
	b.add(nsenter.Op{Code: nsenter.Tree, Text: text(source), Flags: flags, Why: why})
	b.add(nsenter.Op{Code: nsenter.Attach, Text: text(destination), Flags: flags, Why: why})
}

// attributes sets on the mount in slot what was asked for: on it alone, on its
// whole tree, then propagation.
func (b *builder) attributes(slot uint64, own attrs, o *options, why string) {
	add := func(a attrs, propagation uint64, flags nsenter.Flag) {
		if a != (attrs{}) || propagation != 0 {
			b.add(nsenter.Op{Code: nsenter.Attr, Num: num(a.set, a.clear, propagation, slot), Flags: flags, Why: why})
		}
	}
	add(own, 0, 0)
	add(o.recursive, 0, nsenter.Recursive)
	for _, propagation := range o.propagation {
		var flags nsenter.Flag
		if propagation&unix.MS_REC != 0 {
			flags = nsenter.Recursive
		}
		add(attrs{}, propagation&^unix.MS_REC, flags)
	}
}

// cgroupIsForeign reports whether the kernel refuses to mount v2's hierarchy:
// it is at destination already, because the host's whole /sys was bound before,
// as `spec --rootless` does; or the user namespace, or that which the runtime is in,
// has no cgroup namespace of its own, and the host's belongs to another.
func (b *builder) cgroupIsForeign(destination string) bool {
	if b.host.CgroupForeign || b.userNamespace() && !b.newCgroupNamespace() {
		return true
	}
	return destination == "/sys/fs/cgroup" && slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool {
		return clean(m.Destination) == "/sys" && IsBind(&m) && Recursive(&m)
	})
}

// cgroupBound covers the host's v2 hierarchy with the container's own cgroup,
// or with nothing if it has none. What lay there would be writable for the user
// to whom a part is delegated, since "ro" is for /sys alone (CVE-2023-25809).
func (b *builder) cgroupBound(destination string, o *options) {
	why := fmt.Sprintf("error mounting %q to rootfs at %q", "cgroup", destination)
	b.target(destination, "cgroup", nsenter.TargetDirectory, why)
	if b.host.Cgroup.V2 == "" {
		flags := uint64(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		b.add(nsenter.Op{Code: nsenter.Mount, Text: text("tmpfs", "tmpfs", "size=4k"), Num: num(flags), Why: why})
		return
	}
	b.attachTree(b.host.Cgroup.V2, destination, true, why)
	b.attributes(nsenter.SlotTree, o.attributes(), o, why)
}

// cgroupV1 shows the container its own cgroups below a tmpfs, one directory
// per hierarchy as on the host, and links for controllers that share one.
func (b *builder) cgroupV1(destination string, o *options) {
	why := fmt.Sprintf("error mounting %q to rootfs at %q", "cgroup", destination)
	b.target(destination, "tmpfs", nsenter.TargetDirectory, why)
	restrict := uint64(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	b.add(nsenter.Op{Code: nsenter.Mount, Text: text("tmpfs", "tmpfs"), Num: num(restrict), Flags: nsenter.KeepMode, Why: why})
	for _, h := range b.host.Hierarchies {
		if h.Name == "" { // the empty v2 hierarchy of a hybrid host
			continue
		}
		b.cgroupHierarchy(path.Join(destination, path.Base(h.Mountpoint)), h, o)
		for _, controller := range h.Controllers {
			if controller != path.Base(h.Mountpoint) {
				b.add(nsenter.Op{Code: nsenter.Symlink, Text: text(path.Base(h.Mountpoint), path.Join(destination, controller)), Why: why})
			}
		}
	}
	if o.flags&unix.MS_RDONLY != 0 {
		b.readonly(destination, why)
	}
}

func (b *builder) cgroupHierarchy(destination string, h cgroup.Hierarchy, o *options) {
	source, known := b.host.Cgroup.V1[h.Name]
	if !known {
		return
	}
	why := fmt.Sprintf("error mounting cgroup %q to rootfs at %q", h.Name, destination)
	b.target(destination, "cgroup", nsenter.TargetDirectory, why)
	if !b.newCgroupNamespace() {
		b.attachTree(source, destination, true, why)
		b.attributes(nsenter.SlotTree, o.attributes(), o, why)
		return
	}
	data := strings.Join(h.Controllers, ",")
	if data == "" {
		data = h.Name + ",none" // a named hierarchy has no controllers
	}
	b.add(nsenter.Op{Code: nsenter.Mount, Text: text("cgroup", "cgroup", strings.TrimSuffix(data, ",none")), Num: num(uint64(o.flags)), Why: why})
}

func (b *builder) newCgroupNamespace() bool {
	return slices.ContainsFunc(b.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.CgroupNamespace
	})
}

// readonly makes the mount at destination read-only.
func (b *builder) readonly(destination, why string) {
	b.add(nsenter.Op{Code: nsenter.Target, Text: text(destination), Num: num(nsenter.TargetDirectory, 0o755), Why: why})
	b.add(nsenter.Op{Code: nsenter.Attr, Num: num(unix.MOUNT_ATTR_RDONLY, 0, 0, nsenter.SlotTarget), Why: why})
}
