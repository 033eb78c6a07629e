package libcontainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

// prepareFiles makes what the child is to inherit.
func (l *launch) prepareFiles(terminal bool) error {
	l.number(terminal)
	if err := checkPreserved(l.fd.firstFree); err != nil {
		return err
	}
	if l.fd.fifo >= 0 {
		if err := l.makeFifo(); err != nil {
			return err
		}
	}
	if l.fd.console >= 0 {
		if err := l.connectConsole(); err != nil {
			return err
		}
	}
	if l.fd.state > 0 {
		return l.makeHookFiles()
	}
	return nil
}

// checkPreserved makes sure that the descriptors that the process is to have
// were given to us. Those that we opened ourselves close at execve.
func checkPreserved(end int) error {
	for fd := 3; fd < end; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return errdefs.InvalidArgument.Errorf("please check that preserved-fd %d (of %d) is present", fd-3, end-3)
		}
	}
	return nil
}

// number gives the child's descriptors their numbers: stdio, those that the
// process is to have, then ours. It returns the first that is left.
func (l *launch) number(terminal bool) (next int) {
	l.fd = descriptors{fifo: -1, console: -1, container: -1, firstFree: 3 + l.opts.PreserveFDs + listenFDs()}
	l.files = l.files[:0]
	for fd := range l.fd.firstFree {
		l.files = append(l.files, fd)
	}
	next = l.fd.firstFree
	if l.mode == waiting {
		l.fd.fifo = next
		next++
	}
	if terminal {
		l.fd.console = next
		next++
	}
	if l.spec != nil && len(startHooks(l.spec)) > 0 {
		l.fd.state, l.fd.output = next, next+1
		next += 2
		if l.mode == waiting {
			l.fd.report = next
			next++
		}
	}
	return next
}

// inherit appends a descriptor of ours to those that the child gets.
func (l *launch) inherit(fd int) {
	l.files = append(l.files, fd)
	l.owned = append(l.owned, fd)
}

// makeFifo makes exec.fifo and opens both its ends for the child: while it
// lives the fifo has a reader, which is how Start knows.
func (l *launch) makeFifo() error {
	if err := l.inheritFifo(FifoFile); err != nil {
		return err
	}
	failpoint.At("launch-fifo-made")
	return nil
}

func (l *launch) inheritFifo(name string) error {
	path := filepath.Join(l.container.Dir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", path, err)
	}
	l.inherit(fd)
	return nil
}

// cloneEarly starts the clone if config.json says enough at a glance. Where
// there is a v2 hierarchy its cgroup must be there first, to be cloned into, and makeLate
// makes v1's meanwhile; a pure v2 host needs the spec's limits for that.
func (l *launch) cloneEarly() error {
	e, ok := readEarly(l.config)
	if !ok || l.layout.Mode == cgroup.V2 && !l.opts.Cgroup.Systemd {
		return nil
	}
	l.early = &e
	if err := l.checkTerminal(e.terminal); err != nil {
		return err
	}
	if err := l.prepareFiles(e.terminal && (l.mode == attached || l.opts.ConsoleSocket != "")); err != nil {
		return err
	}
	b := birth{init: true, files: l.files, namespaces: newNamespaces(e.namespaces), pidFD: -1}
	if !l.opts.NoNewKeyring {
		b.keyring = keyringOf(l.container.ID)
	}
	if l.layout.Mode == cgroup.Hybrid && !l.opts.Cgroup.Systemd {
		if err := l.beginCgroup(&specs.Spec{Linux: &specs.Linux{CgroupsPath: e.cgroupsPath}}); err != nil {
			return err
		}
		b.cgroup = l.cgroup
	}
	l.unborn = l.clone(b) // told once the spec is known to be right
	return nil
}

// clone starts the stage.
func (l *launch) clone(b birth) (err error) {
	l.child, err = spawn(b)
	if err != nil && b.elsewhere != nil {
		if other, ok := b.elsewhere(err); ok {
			b.cgroup = other
			l.child, err = spawn(b)
		}
	}
	l.closeOwned() // who waits for their end waits for the child's
	failpoint.At("launch-cloned")
	l.undo.Add("kill the container's process", func(context.Context) error { return l.killChild() })
	return err
}

// killChild ends the process if there is one.
func (l *launch) killChild() error {
	if l.child == nil {
		return nil
	}
	return l.child.kill()
}

// cloneAndCompile does our own work on cgroup and plan while the stage begins.
func (l *launch) cloneAndCompile() error {
	switch {
	case l.early == nil:
		if err := l.cloneLate(); err != nil {
			return err
		}
	case !l.early.agrees(l.spec):
		return errdefs.Internal.Errorf("config.json: expected each key of process, linux and mounts once and in its own case")
	case l.unborn != nil:
		return l.unborn
	}
	if err := l.work(); err != nil {
		return err
	}
	failpoint.At("launch-compiled")
	return nil
}

// cloneLate starts the clone with all that the decoded spec says.
func (l *launch) cloneLate() error {
	if err := l.prepareFiles(l.spec.Process.Terminal); err != nil {
		return err
	}
	if l.cgroup == nil && !l.opts.Cgroup.Systemd {
		if err := l.makeCgroup(l.spec); err != nil {
			return err
		}
	}
	if l.cgroup != nil && private(l.spec, specs.UserNamespace) {
		if err := l.openJoinFiles(); err != nil {
			return err
		}
	}
	if err := l.openTrees(); err != nil {
		return err
	}
	b := birth{init: true, files: l.files, pidFD: -1, cgroup: l.cgroup}
	if !staged(l.spec, l.user) {
		b.namespaces = newNamespaces(l.spec.Linux.Namespaces)
		b.uids, b.gids = idMaps(l.spec.Linux.UIDMappings), idMaps(l.spec.Linux.GIDMappings)
	}
	if ns := namespace(l.spec, specs.PIDNamespace); ns != nil && ns.Path != "" {
		fd, err := unix.Open(ns.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("joining pid namespace %q: %w", ns.Path, err)
		}
		l.owned = append(l.owned, fd)
		if kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWPID {
			return fmt.Errorf("joining pid namespace %q: %w", ns.Path, cmp.Or(err, error(unix.EINVAL)))
		}
		b.pidFD = fd
	}
	return l.clone(b)
}

// openJoinFiles opens for the child what the root of a user namespace cannot.
func (l *launch) openJoinFiles() error {
	for _, file := range append(l.cgroup.JoinFiles(), l.resctrl.TaskFiles()...) {
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", file, err)
		}
		l.joinFDs = append(l.joinFDs, len(l.files))
		l.inherit(fd)
	}
	return nil
}

// adjustOOM does for a process in a user namespace what it may not itself.
func (l *launch) adjustOOM() error {
	adj := l.spec.Process.OOMScoreAdj
	if adj == nil || l.user.unprivileged || !private(l.spec, specs.UserNamespace) {
		return nil
	}
	file := fmt.Sprintf("/proc/%d/oom_score_adj", l.child.pid)
	if err := os.WriteFile(file, []byte(strconv.Itoa(*adj)), 0); err != nil {
		return fmt.Errorf("setting oom_score_adj: %w", err)
	}
	return nil
}

// raiseLimits lets a process in a user namespace have limits above ours, which only the
// host's root may give (getrlimit(2)). The process sets them itself, and says what it is
// refused: what we may not raise is left to that.
func (l *launch) raiseLimits() error {
	if l.namespaces()&unix.CLONE_NEWUSER == 0 {
		return nil
	}
	for _, r := range l.spec.Process.Rlimits {
		var limit unix.Rlimit
		err := unix.Prlimit(l.child.pid, int(rlimits[r.Type]), nil, &limit)
		if err == nil && limit.Max < r.Hard {
			limit.Max = r.Hard
			err = unix.Prlimit(l.child.pid, int(rlimits[r.Type]), &limit, nil)
		}
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("raising the limit of rlimit %s: %w", r.Type, err)
		}
	}
	return nil
}

// writeTimeOffsets sets the clocks of the child's new time namespace
// (time_namespaces(7)).
func (l *launch) writeTimeOffsets() error {
	var text strings.Builder
	for _, clock := range slices.Sorted(maps.Keys(l.spec.Linux.TimeOffsets)) {
		offset := l.spec.Linux.TimeOffsets[clock]
		fmt.Fprintf(&text, "%s %d %d\n", clock, offset.Secs, offset.Nanosecs)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", l.child.pid), []byte(text.String()), 0); err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.timeOffsets", "setting linux.timeOffsets: %w", err)
	}
	return nil
}

// newNamespaces are the flags of those that the process has before its plan. The
// cgroup namespace is not among them, it is made inside the cgroup, nor that of
// time, whose clocks we set before anybody is in it.
func newNamespaces(list []specs.LinuxNamespace) uintptr {
	var flags uintptr
	for _, ns := range list {
		if ns.Path == "" && ns.Type != specs.CgroupNamespace && ns.Type != specs.TimeNamespace {
			flags |= uintptr(cloneFlags[ns.Type])
		}
	}
	return flags
}

func idMaps(list []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	maps := make([]syscall.SysProcIDMap, 0, len(list))
	for _, m := range list {
		maps = append(maps, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return maps
}
