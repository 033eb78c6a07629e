package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/proto/errdefs"
)

// compile makes the plan out of spec and host.
func (l *launch) compile() error {
	f := facts{
		root: rootfs.Host{
			Bundle: l.bundle, Rootfs: l.rootfs, NoPivot: l.opts.NoPivot,
			CgroupMode: l.layout.Mode, Hierarchies: l.layout.Hierarchies(),
			Trees: l.trees, Label: mountLabel(l.spec), Kcore: exists("/proc/kcore"), IsDirectory: l.isDirectory, IsProc: isProc,
		},
		id: l.container.ID, fd: l.fd, joinFDs: l.joinFDs, filter: l.filter, keyring: !l.opts.NoNewKeyring, plain: l.plainLines(), user: l.user,
	}
	if l.spec.Linux.RootfsPropagation != "" {
		parent, err := mountPoint(l.rootfs)
		if err != nil {
			return err
		}
		f.root.ParentMount = parent
		if f.root.NullMount, err = mountPoint("/dev/null"); err != nil {
			return err
		}
	}
	f.root.CgroupForeign = l.cgroupForeign()
	cg := l.cgroup
	if cg == nil { // a dry run
		location, ok := cgroup.LocateUnit(l.layout, l.spec, l.container.ID)
		if !ok || !l.opts.Cgroup.Systemd {
			location = cgroup.Locate(l.layout, l.spec, l.container.ID)
		}
		cg = cgroup.At(location)
	}
	f.root.Cgroup = cg.Location()
	if !l.opts.Cgroup.Systemd { // which has moved the process
		f.joinFiles = cg.JoinFiles()
	}
	if l.limitsLater(cg) {
		f.lateCPU = true
		f.lateFile, _ = cg.CpusetFile()
		f.joinFiles = slices.DeleteFunc(f.joinFiles, func(file string) bool { return file == f.lateFile })
	}
	f.joinFiles = append(f.joinFiles, l.resctrl.TaskFiles()...)
	err := f.ofProcess(l.spec)
	if err != nil {
		return err
	}
	l.plan, err = compilePlan(l.spec, &f)
	if err == nil && slog.Default().Enabled(context.Background(), slog.LevelDebug) {
		slog.Debug("plan:\n" + l.plan.String())
	}
	return err
}

// limitsLater reports whether v1's limits of processors can wait until the process
// has begun. It must not need them before it is done with mounts, nor ask for
// anything else before, and must find the cpuset's file then: on a path that is not
// in the root, by a namespace that is not rooted in the cgroup.
func (l *launch) limitsLater(cg *cgroup.Cgroup) bool {
	linux := l.spec.Linux
	file, alone := cg.CpusetFile()
	switch {
	case l.layout.Mode == cgroup.V2, l.opts.Cgroup.Systemd, !alone, below(file, l.rootfs):
		return false
	case staged(l.spec, l.user), private(l.spec, specs.UserNamespace), private(l.spec, specs.CgroupNamespace), len(linux.NetDevices) > 0:
		return false
	}
	resources := linux.Resources
	return resources == nil || resources.CPU == nil || resources.CPU.RealtimeRuntime == nil && resources.CPU.RealtimePeriod == nil
}

// cgroupForeign reports whether the cgroup namespace that the container is to be in is
// owned by a user namespace above ours: the kernel lets us mount nothing of it.
func (l *launch) cgroupForeign() bool {
	path := "/proc/self/ns/cgroup"
	if ns := namespace(l.spec, specs.CgroupNamespace); ns != nil {
		if path = ns.Path; path == "" {
			return false
		}
	}
	if l.layout.Mode != cgroup.V2 || !cgroup.InUserNamespace() {
		return false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // who joins it says why
	}
	defer unix.Close(fd)
	owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
	if err != nil {
		return errors.Is(err, unix.EPERM) // ioctl_ns(2): outside our own
	}
	unix.Close(owner)
	return false
}

func below(file, directory string) bool {
	return strings.HasPrefix(file, strings.TrimSuffix(directory, "/")+"/")
}

func (l *launch) detectCgroups() {
	layout, err := cgroup.Detect()
	if err != nil {
		slog.Debug("no cgroups: " + err.Error())
	}
	l.layout = layout
}

// ofProcess adds what the process part needs, and what the host lets it have.
func (f *facts) ofProcess(spec *specs.Spec) (err error) {
	if n := listenFDs(); n > 0 {
		spec.Process.Env = append(spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	f.available = 1<<len(capabilityNames) - 1 // of a user namespace its root has all
	if !private(spec, specs.UserNamespace) {
		if f.available, err = ownCapabilities(); err != nil {
			return err
		}
	}
	if f.apparmor, err = apparmorFor(spec.Process); err != nil {
		return err
	}
	return checkSelinux(spec.Process)
}

// checkSelinux: a label needs SELinux. The text is runc's.
func checkSelinux(p *specs.Process) error {
	if p.SelinuxLabel == "" || selinuxEnabled() {
		return nil
	}
	return errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "process.selinuxLabel",
		"process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported")
}

// mountLabel is the context that mounts get. Where SELinux is off no file
// system takes one and nothing would look at it: it is left out, as by crun.
func mountLabel(spec *specs.Spec) string {
	label := spec.Linux.MountLabel
	if label != "" && !selinuxEnabled() {
		slog.Warn("linux.mountLabel: SELinux is disabled or not supported, mounts are not labelled")
		return ""
	}
	return label
}

// selinuxEnabled: its file system is there, and a policy, without which the
// only context is "kernel" (selinux(8), is_selinux_enabled(3)).
func selinuxEnabled() bool {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/selinux", &fs) != nil || fs.Type != unix.SELINUX_MAGIC {
		return false
	}
	current, err := os.ReadFile("/proc/self/attr/current")
	return err == nil && strings.TrimRight(string(current), "\x00\n") != "kernel"
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isDirectory(path string) (bool, error) {
	found, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return found.IsDir(), nil
}

func isProc(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// ownCapabilities are those that the runtime can give: its permitted set.
func ownCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading the runtime's capabilities: %w", err)
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32, nil
}

// apparmorFor reports whether a profile is to be set: asked for, and possible.
func apparmorFor(p *specs.Process) (bool, error) {
	if p.ApparmorProfile == "" {
		return false, nil
	}
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		if p.ApparmorProfile == "unconfined" { // it is
			return false, nil
		}
		return false, errdefs.FailedPrecondition.Coded(errdefs.SpecInvalid, "process.apparmorProfile",
			"process.apparmorProfile: apparmor: config provided but apparmor not supported")
	}
	return true, nil
}

// mountPoint returns where the mount that path is on is mounted: the first
// directory upwards that statx says is a mount's root (5.8).
func mountPoint(path string) (string, error) {
	for {
		var found unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &found); err != nil {
			return "", fmt.Errorf("looking for the mount of %s: %w", path, err)
		}
		if found.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || path == "/" {
			return path, nil
		}
		path = filepath.Dir(path)
	}
}
