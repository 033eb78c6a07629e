package rootfs

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/nsenter"
)

// defaultDevices are those that the spec requires of every container
// (config-linux, default devices), in runc's order.
var defaultDevices = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8},
	{Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
	{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5},
	{Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9},
}

var deviceTypes = map[string]uint64{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}

// ownDev is false if the spec binds something on /dev: that is then left alone.
func (b *builder) ownDev() bool {
	return !slices.ContainsFunc(b.spec.Mounts, func(m specs.Mount) bool {
		o := parseOptions(m.Options)
		return clean(m.Destination) == "/dev" && isBind(&m, &o)
	})
}

// devices makes the default devices and the spec's; the spec's come last and
// win, because a node that is there is kept.
func (b *builder) devices() {
	listed := b.spec.Linux.Devices
	for i := range defaultDevices {
		same := func(d specs.LinuxDevice) bool { return clean(d.Path) == defaultDevices[i].Path }
		if !slices.ContainsFunc(listed, same) {
			b.device(&defaultDevices[i], 0)
		}
	}
	for i := range listed {
		if clean(listed[i].Path) != "/dev/ptmx" { // links makes it
			b.device(&listed[i], nsenter.Exact)
		}
	}
}

func (b *builder) device(d *specs.LinuxDevice, flags nsenter.Flag) {
	mode := uint64(0o666)
	if d.FileMode != nil {
		mode = uint64(*d.FileMode) & 0o7777
	}
	var uid, gid uint64
	if d.UID != nil {
		uid = uint64(*d.UID)
	}
	if d.GID != nil {
		gid = uint64(*d.GID)
	}
	op := nsenter.Op{Code: nsenter.Mknod, Text: text(clean(d.Path), clean(d.Path)), Flags: flags,
		Num: num(mode|deviceTypes[d.Type], unix.Mkdev(uint32(d.Major), uint32(d.Minor)), uid, gid),
		Why: fmt.Sprintf("making device %q", d.Path)}
	if d.Type == "p" {
		op.Num[1] = 0
	} else if b.userNamespace() {
		op.Flags |= nsenter.BindNode
	}
	b.add(op)
}

// userNamespace: mknod is not allowed in one, but of a fifo.
func (b *builder) userNamespace() bool {
	return slices.ContainsFunc(b.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.UserNamespace
	})
}

// links adds the default symbolic links (config-linux, "Default Devices" and
// "/dev symbolic links").
func (b *builder) links() {
	b.add(nsenter.Op{Code: nsenter.Symlink, Text: text("pts/ptmx", "/dev/ptmx"), Flags: nsenter.Replace, Why: "linking /dev/ptmx"})
	for _, link := range [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	} {
		b.add(nsenter.Op{Code: nsenter.Symlink, Text: text(link[0], link[1]), Why: "linking " + link[1]})
	}
	if b.host.Kcore {
		b.add(nsenter.Op{Code: nsenter.Symlink, Text: text("/proc/kcore", "/dev/core"), Why: "linking /dev/core"})
	}
}
