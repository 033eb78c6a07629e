package libcontainer

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/proto/errdefs"
)

// needTree reports whether the parent opens the source of the i-th mount: an
// id map takes the right to the file system, and the root of a user namespace
// may not be allowed where the source is.
func (l *launch) needTree(i int) bool {
	m := &l.spec.Mounts[i]
	return rootfs.IsBind(m) && (rootfs.IDMapped(m) || private(l.spec, specs.UserNamespace))
}

// numberTrees gives the trees the numbers from next on, as openTrees would, for a dry
// run.
func (l *launch) numberTrees(next int) {
	l.trees = map[int]int{}
	for i := range l.spec.Mounts {
		if l.needTree(i) {
			l.trees[i] = next
			next++
		}
	}
}

// openTrees clones the sources of binds that the child cannot open itself.
func (l *launch) openTrees() error {
	l.trees = map[int]int{}
	var users userNamespaces
	defer users.close()
	for i := range l.spec.Mounts {
		if !l.needTree(i) {
			continue
		}
		fd, err := l.openTree(i, &users)
		if (errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)) && !rootfs.IDMapped(&l.spec.Mounts[i]) {
			continue // before 5.2, or unprivileged: the child tries
		}
		if err != nil {
			m := &l.spec.Mounts[i]
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", m.Source, m.Destination, err)
		}
		l.trees[i] = len(l.files)
		l.inherit(fd)
	}
	return nil
}

func (l *launch) openTree(i int, users *userNamespaces) (int, error) {
	m := &l.spec.Mounts[i]
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if rootfs.Recursive(m) {
		flags |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, rootfs.Source(m, l.bundle), flags)
	if errors.Is(err, unix.ENOSYS) && rootfs.IDMapped(m) {
		return -1, errdefs.NotImplemented.Errorf("an id-mapped mount needs the system call open_tree (Linux 5.2): %w", err)
	}
	if err != nil || !rootfs.IDMapped(m) {
		return tree, err
	}
	if err := l.mapTree(tree, m, users); err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// mapTree puts the mount's id map, or the container's own, on its tree.
func (l *launch) mapTree(tree int, m *specs.Mount, users *userNamespaces) error {
	user, err := users.open(l.spec, m)
	if err != nil {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(user)}
	flags := uint(unix.AT_EMPTY_PATH)
	if rootfs.RecursivelyMapped(m) {
		flags |= unix.AT_RECURSIVE
	}
	err = unix.MountSetattr(tree, "", flags, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return errdefs.NotImplemented.Errorf("an id-mapped mount needs the system call mount_setattr (Linux 5.12): %w", err)
	}
	if errors.Is(err, unix.EINVAL) {
		return errdefs.FailedPrecondition.Errorf("setting MOUNT_ATTR_IDMAP (the file system may not support id-mapped mounts on this kernel): %w", err)
	}
	return err
}

// userNamespaces are the maps as the kernel takes them, one for each.
type userNamespaces []userNamespace

type userNamespace struct {
	uids, gids []specs.LinuxIDMapping
	fd         int
}

// open returns a namespace with the mount's maps; without any it is the
// container's.
func (u *userNamespaces) open(spec *specs.Spec, m *specs.Mount) (int, error) {
	own := namespace(spec, specs.UserNamespace)
	wanted := userNamespace{uids: m.UIDMappings, gids: m.GIDMappings, fd: -1}
	if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
		wanted.uids, wanted.gids = spec.Linux.UIDMappings, spec.Linux.GIDMappings
	}
	for _, n := range *u {
		if slices.Equal(n.uids, wanted.uids) && slices.Equal(n.gids, wanted.gids) {
			return n.fd, nil
		}
	}
	var err error
	if own != nil && own.Path != "" && len(m.UIDMappings) == 0 {
		wanted.fd, err = unix.Open(own.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	} else {
		wanted.fd, err = newUserNamespace(wanted.uids, wanted.gids)
	}
	if err != nil {
		return -1, fmt.Errorf("making a user namespace for its id map: %w", err)
	}
	*u = append(*u, wanted)
	return wanted.fd, nil
}

func (u *userNamespaces) close() {
	for _, n := range *u {
		unix.Close(n.fd)
	}
}

// newUserNamespace makes one that only its descriptor keeps.
func newUserNamespace(uids, gids []specs.LinuxIDMapping) (fd int, err error) {
	child, err := spawn(birth{files: []int{2, 2, 2}, namespaces: unix.CLONE_NEWUSER, pidFD: -1, uids: idMaps(uids), gids: idMaps(gids), unchanged: true})
	if err != nil {
		return -1, err
	}
	defer child.close()
	fd, err = unix.Open("/proc/"+strconv.Itoa(child.pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, errors.Join(err, child.kill())
}
