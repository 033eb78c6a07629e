package rootfs

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// Host is what the plan has to know about the host.
type Host struct {
	Bundle        string // absolute; relative sources count from here
	Rootfs        string // absolute, no links in it
	ParentMount   string // the mount point that Rootfs is below; only for a rootfsPropagation
	NullMount     string // the one that /dev/null is on; the same
	NoPivot       bool
	CgroupMode    cgroup.Mode
	Hierarchies   []cgroup.Hierarchy
	Cgroup        cgroup.Location // the container's
	Trees         map[int]int     // mounts whose source the parent opened → descriptor
	Label         string          // SELinux context of file systems
	Kcore         bool            // /proc/kcore is there
	CgroupForeign bool            // the cgroup namespace is of a user namespace in which we are not root
	// IsDirectory asks for a bind's source, IsProc whether it is on procfs.
	IsDirectory func(path string) (bool, error)
	IsProc      func(path string) bool
}

// builder appends to the plan.
type builder struct {
	plan *nsenter.Plan
	spec *specs.Spec
	host *Host
}

// Build appends the operations that make the root, up to where the hooks run:
// all mounts are there, the old root is still /.
func Build(plan *nsenter.Plan, spec *specs.Spec, host *Host) error {
	b := &builder{plan: plan, spec: spec, host: host}
	b.root()
	for i := range spec.Mounts {
		if err := b.mount(i); err != nil {
			return err
		}
	}
	if b.ownDev() {
		b.devices()
		b.links()
	}
	return nil
}

// Finish appends the operations that close the root and switch to it. They
// follow the process's terminal, which may still need a writable /dev.
func Finish(plan *nsenter.Plan, spec *specs.Spec, host *Host) {
	b := &builder{plan: plan, spec: spec, host: host}
	// The working directory is made if it is not there, as runc does, while
	// the root can still be written.
	b.add(nsenter.Op{Code: nsenter.Target, Text: text(spec.Process.Cwd), Num: num(nsenter.TargetDirectory, 0o755), Flags: nsenter.ProcInside | nsenter.Optional,
		Why: fmt.Sprintf("making the working directory %q", spec.Process.Cwd)})
	b.seal()
	b.hide()
	if readonlyRoot(spec) {
		b.add(nsenter.Op{Code: nsenter.Attr, Num: num(unix.MOUNT_ATTR_RDONLY, 0, 0, nsenter.SlotRoot), Why: "making the root read-only"})
	}
	// Last, because all sources and /proc above are the host's.
	if HostMounts(spec) {
		b.add(nsenter.Op{Code: nsenter.Chroot, Why: "switching to the root by chroot, without a mount namespace"})
		return
	}
	if host.NoPivot {
		b.add(nsenter.Op{Code: nsenter.MoveRoot, Text: text(host.Rootfs), Why: "moving the root to / (--no-pivot)"})
	} else {
		b.add(nsenter.Op{Code: nsenter.Pivot, Why: "switching to the root by pivot_root"})
	}
	if p := spec.Linux.RootfsPropagation; p != "" {
		b.add(nsenter.Op{Code: nsenter.Propagation, Text: text("/"), Num: num(propagationOptions[p]), Why: "setting the root's propagation to " + p})
	}
}

func (b *builder) add(op nsenter.Op) { b.plan.Add(op) }

func readonlyRoot(spec *specs.Spec) bool {
	return spec.Root.Readonly || slices.ContainsFunc(spec.Linux.ReadonlyPaths, func(p string) bool { return clean(p) == "/" })
}

// HostMounts reports whether the container's mounts are made in the runtime's
// own mount namespace, below a mount of the root that the parent made.
func HostMounts(spec *specs.Spec) bool {
	return !slices.ContainsFunc(spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.MountNamespace
	})
}

// root mounts the root on itself, cut off from the host.
func (b *builder) root() {
	if HostMounts(b.spec) {
		b.add(nsenter.Op{Code: nsenter.Root, Text: text(b.host.Rootfs), Flags: nsenter.Mounted, Why: fmt.Sprintf("opening the root %q", b.host.Rootfs)})
		return
	}
	propagation := uint64(unix.MS_SLAVE | unix.MS_REC)
	if p := b.spec.Linux.RootfsPropagation; p != "" {
		propagation = propagationOptions[p]
	}
	if propagation&unix.MS_UNBINDABLE != 0 {
		// What is mounted cannot be bound then; Finish sets it.
		propagation = propagation&^unix.MS_UNBINDABLE | unix.MS_PRIVATE
	}
	// First of all: no mount made in here may travel to the host, unless the
	// spec wants it.
	b.add(nsenter.Op{Code: nsenter.Propagation, Text: text("/"), Num: num(propagation), Why: "cutting the mount namespace off from the host"})
	if propagation&unix.MS_SHARED != 0 || propagation&unix.MS_REC == 0 {
		// pivot_root refuses a shared parent, and the root that inherits it.
		b.add(nsenter.Op{Code: nsenter.Propagation, Text: text(b.host.ParentMount), Num: num(unix.MS_PRIVATE), Why: "making the root's parent private"})
	}
	// pivot_root wants a mount point.
	b.add(nsenter.Op{Code: nsenter.Root, Text: text(b.host.Rootfs), Why: fmt.Sprintf("mounting the root %q", b.host.Rootfs)})
}

// seal makes those tmpfs mounts read-only that the spec wants so. It is done
// late because mount points and devices are made in them.
func (b *builder) seal() {
	for i := range b.spec.Mounts {
		m := &b.spec.Mounts[i]
		o := parseOptions(m.Options)
		if !sealedLater(m, &o) {
			continue
		}
		destination := clean(m.Destination)
		b.readonly(destination, fmt.Sprintf("making the mount at %q read-only", destination))
	}
}

// hide masks paths and makes others read-only, in runc's order.
func (b *builder) hide() {
	for _, p := range b.spec.Linux.ReadonlyPaths {
		if clean(p) == "/" {
			continue // see readonlyRoot
		}
		b.add(nsenter.Op{Code: nsenter.Readonly, Text: text(p), Why: fmt.Sprintf("making %q read-only", p)})
	}
	if len(b.spec.Linux.MaskedPaths) == 0 {
		return
	}
	if b.spec.Linux.RootfsPropagation != "" && !HostMounts(b.spec) {
		// With one that leaves it shared, what is mounted on a mask would be mounted on
		// the host's /dev/null.
		b.add(nsenter.Op{Code: nsenter.Propagation, Text: text(b.host.NullMount), Num: num(unix.MS_PRIVATE), Why: "making the mount of /dev/null private"})
	}
	b.add(nsenter.Op{Code: nsenter.Null, Why: "opening the host's /dev/null for masks"})
	for _, p := range b.spec.Linux.MaskedPaths {
		b.add(nsenter.Op{Code: nsenter.Mask, Text: text(p), Why: fmt.Sprintf("masking %q", p)})
	}
}

// clean returns a destination as the container sees it; a relative one counts
// from its root, as in runc.
func clean(destination string) string { return path.Join("/", destination) }

// Source returns a bind's source as an absolute path.
func Source(m *specs.Mount, bundle string) string {
	if filepath.IsAbs(m.Source) {
		return filepath.Clean(m.Source)
	}
	return filepath.Join(bundle, m.Source)
}

func (b *builder) source(m *specs.Mount) string { return Source(m, b.host.Bundle) }

func text(texts ...string) (out [3]string) { copy(out[:], texts); return }

func num(numbers ...uint64) (out [4]uint64) { copy(out[:], numbers); return }

// invalid is an error about a field of the spec.
func invalid(field, format string, args ...any) error {
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "%s: %w", field, fmt.Errorf(format, args...))
}
