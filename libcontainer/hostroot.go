package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/rootfs"
	"github.com/engined/engined/proto/errdefs"
)

// RootMountFile is there for a container without a mount namespace: the id of
// the mount that mountRoot made, and where.
const RootMountFile = "root-mount"

// mountRoot gives a container without a mount namespace a mount of its root, in
// the runtime's own namespace. All its mounts come below it, so that one
// unmount takes them away; other runtimes leave them on the host. The id is
// written before the mount is there: a runtime that dies in between leaves
// nothing that delete --force does not find.
func (l *launch) mountRoot() error {
	if !rootfs.HostMounts(l.spec) {
		return nil
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, l.rootfs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("cloning the mount of %s (a container without a mount namespace needs Linux 5.8): %w", l.rootfs, err)
	}
	defer unix.Close(tree)
	id, err := mountID(tree, "")
	if err != nil {
		return err
	}
	line := strconv.FormatUint(id, 10) + " " + l.rootfs
	if err := os.WriteFile(filepath.Join(l.container.Dir(), RootMountFile), []byte(line), 0o600); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, l.rootfs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting the root %s: %w", l.rootfs, err)
	}
	l.undo.Add("unmount the root", func(context.Context) error {
		return errors.Join(l.killChild(), l.container.unmountRoot())
	})
	// What the child mounts below it shall not travel to the mount's peers.
	private := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &private); err != nil {
		return fmt.Errorf("making the mount of the root private: %w", err)
	}
	return nil
}

// unmountRoot takes away what mountRoot and the child mounted, if the mount at
// that place is still the one that was made.
func (c *Container) unmountRoot() error {
	line, err := os.ReadFile(filepath.Join(c.Dir(), RootMountFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	number, path, _ := strings.Cut(string(line), " ")
	want, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return errdefs.DataLoss.Errorf("%s of container %s: %w", RootMountFile, c.ID, err)
	}
	id, err := mountID(unix.AT_FDCWD, path)
	if errors.Is(err, unix.ENOENT) || err == nil && id != want {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmounting the root %s: %w", path, err)
	}
	return nil
}

// mountID is the kernel's number for the mount that a path, or a descriptor
// alone, leads to (statx, 5.8).
func mountID(dir int, path string) (uint64, error) {
	var found unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(dir, path, flags, unix.STATX_MNT_ID, &found); err != nil {
		return 0, fmt.Errorf("asking for the mount of %s: %w", path, err)
	}
	if found.Mask&unix.STATX_MNT_ID == 0 {
		return 0, errdefs.NotImplemented.Errorf("asking for the mount of %s: this kernel does not number mounts (5.8)", path)
	}
	return found.Mnt_id, nil
}

// ownRoot is where the container's root is on the host, "" if it has a mount
// namespace.
func (c *Container) ownRoot() string {
	if _, err := os.Lstat(filepath.Join(c.Dir(), RootMountFile)); err != nil {
		return ""
	}
	return c.State.Rootfs
}

// checkHostMounts: without a mount namespace all that is hidden or propagated
// would be so for the host.
func checkHostMounts(spec *specs.Spec) error {
	switch {
	case !rootfs.HostMounts(spec):
		return nil
	case len(spec.Linux.MaskedPaths)+len(spec.Linux.ReadonlyPaths) > 0:
		return invalid("linux.maskedPaths", "unable to restrict sys entries without a private MNT namespace")
	case spec.Linux.RootfsPropagation != "":
		return invalid("linux.rootfsPropagation", "unable to set the root's propagation without a private mount namespace")
	}
	return nil
}
