package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// probeOverlay mounts a small overlay, and makes below it what unpacking needs
// to make: a trusted xattr and a whiteout.
func probeOverlay(root string) error {
	if !kernelHas("overlay") {
		return errdefs.FailedPrecondition.Errorf("the kernel has no overlay file system (modprobe overlay; CONFIG_OVERLAY_FS)")
	}
	if filesystemOf(root) == "overlayfs" {
		return errdefs.FailedPrecondition.Errorf("the data root is on an overlay itself, which cannot hold whiteouts: put --data-root on ext4, xfs or btrfs (a volume, where this is a container), or use --storage-driver vfs")
	}
	dir, err := os.MkdirTemp(root, ".probe-")
	if err != nil {
		return err
	}
	return errors.Join(tryOverlay(dir), overlay{}.remove(dir))
}

func tryOverlay(dir string) error {
	lower := filepath.Join(dir, "lower")
	if err := os.MkdirAll(filepath.Join(lower, "diff"), 0o700); err != nil {
		return err
	}
	if err := tellsTypes(dir); err != nil {
		return err
	}
	if err := unix.Setxattr(filepath.Join(lower, "diff"), opaqueXattr, []byte("y"), 0); err != nil {
		return errdefs.FailedPrecondition.Errorf("%s takes no attribute %s, which marks directories that hide what is below (the capability SYS_ADMIN of the machine itself is needed): %w",
			filesystemOf(dir), opaqueXattr, err)
	}
	if err := unix.Mknod(filepath.Join(lower, "diff", "whiteout"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("making a whiteout, which is a device 0:0 (capability MKNOD): %w", err)
	}
	o := overlay{dir: dir}
	if err := o.makeDirs(dir, nil); err != nil {
		return err
	}
	_, err := o.mount(context.Background(), dir, []string{lower})
	return err
}

// tellsTypes refuses file systems whose directories do not say of what type an
// entry is (d_type): on them whiteouts show as files. The directory has one
// entry besides itself and its parent.
func tellsTypes(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 4096)
	n, err := unix.Getdents(fd, buffer)
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	const typeAt = 18 // in struct linux_dirent64: after inode, offset and length
	for at := 0; at+typeAt < n; at += int(buffer[at+16]) | int(buffer[at+17])<<8 {
		if buffer[at+typeAt] == unix.DT_UNKNOWN {
			return errdefs.FailedPrecondition.Errorf("the %s file system below was made without d_type (types of entries in directories): make it anew, xfs with -n ftype=1, ext4 with -O filetype, or use --storage-driver vfs", filesystemOf(dir))
		}
	}
	return nil
}
