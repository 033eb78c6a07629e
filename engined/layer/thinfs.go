package layer

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/thinpool"
	"github.com/engined/engined/proto/errdefs"
)

// File systems on thin devices: made and grown by their own programs, mounted
// by us.

const sectorSize = 512

// format makes a file system with nothing in it on a fresh device.
func (t *thin) format(device thinDevice) (err error) {
	active, err := t.pool.Activate(device.ID, device.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, active.Close()) }()
	arguments := append([]string{}, t.mkfsArguments...)
	if t.filesystem == "ext4" {
		// Tables are made when they are needed: the pool gives no block before.
		arguments = append(arguments, "-q", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0")
	} else {
		arguments = append(arguments, "-q")
	}
	if err := tell("mkfs."+t.filesystem, append(arguments, active.Path)...); err != nil {
		return err
	}
	root, err := t.attachDevice(active, false)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// What mkfs.ext4 makes for its checker would be in every image.
	if err := unix.Unlinkat(root, "lost+found", unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing lost+found: %w", err)
	}
	return unix.Chmod(atPath(root, "."), 0o755) // the descriptor is O_PATH
}

// tell runs a program that makes or changes file systems.
func tell(name string, arguments ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return errdefs.FailedPrecondition.Errorf("%s is needed (Debian: e2fsprogs for ext4, xfsprogs for xfs): %w", name, err)
	}
	if out, err := exec.Command(path, arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// attachDevice mounts a device without a place in the tree and returns the
// descriptor of its root: the mount ends with the last user of that.
func (t *thin) attachDevice(active *thinpool.Device, readOnly bool) (root int, err error) {
	fs, err := unix.Fsopen(t.filesystem, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, errdefs.FailedPrecondition.Errorf("the kernel has no %s (dm.fs): %w", t.filesystem, err)
	}
	defer unix.Close(fs)
	options := append([][2]string{{"source", active.Path}}, t.fileOptions...)
	if t.filesystem == "xfs" { // a snapshot has the same identity as its origin
		options = append(options, [2]string{"nouuid", ""})
	}
	if readOnly {
		options = append(options, [2]string{"ro", ""})
	}
	for _, option := range options {
		if err := configure(fs, option); err != nil {
			return -1, fmt.Errorf("mounting %s: option %s: %w", active.Path, option[0], withLog(fs, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mounting %s: %w", active.Path, withLog(fs, err))
	}
	if root, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, t.mountAttributes); err != nil {
		return -1, fmt.Errorf("mounting %s: %w", active.Path, err)
	}
	return root, nil
}

// attach is attachDevice for a layer. The device is active as long as it is mounted.
func (t *thin) attach(device thinDevice, readOnly bool) (root int, err error) {
	active, err := t.pool.Activate(device.ID, device.Size)
	if err != nil {
		return -1, err
	}
	root, err = t.attachDevice(active, readOnly)
	return root, errors.Join(err, active.Close())
}

func (t *thin) mount(_ context.Context, dir string, _ []string) (string, error) {
	diff := filepath.Join(dir, "diff")
	mounted, err := mountinfo.Mounted(diff)
	if err != nil || mounted {
		return diff, err
	}
	device, err := readDevice(dir)
	if err != nil {
		return "", err
	}
	root, err := t.attach(device, false)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, diff, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("mounting on %s: %w", diff, err)
	}
	return diff, nil
}

func (*thin) unmount(dir string) error { return unmountAt(filepath.Join(dir, "diff")) }

// read gives a view of its own. A container may have the same file system
// mounted, or mount it meanwhile, and the kernel wants all mounts of one device
// to be for reading or all for writing: that is decided by what the layer is.
func (t *thin) read(_ context.Context, dir string) (string, func() error, error) {
	device, err := readDevice(dir)
	if err != nil {
		return "", nil, err
	}
	root, err := t.attach(device, device.ReadOnly)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/.", root), func() error { return unix.Close(root) }, nil
}

// grow makes the file system on a larger snapshot as large as that. Both
// programs want it mounted; resize2fs takes it so without a check before.
func (t *thin) grow(ctx context.Context, dir string, device thinDevice) (err error) {
	diff, err := t.mount(ctx, dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.unmount(dir)) }()
	if t.filesystem == "xfs" {
		return tell("xfs_growfs", diff)
	}
	active, err := t.pool.Activate(device.ID, device.Size)
	if err != nil {
		return err
	}
	return errors.Join(tell("resize2fs", active.Path), active.Close())
}

// unmountAt asks nicely first. A busy mount (somebody's working directory in it)
// is detached: it goes when its last user goes, and the name is free at once.
func unmountAt(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// EINVAL: not a mount point.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	return nil
}
