package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// overlay joins layers with the kernel's overlayfs.
type overlay struct{}

// mountOptions make the upper directory hold whole files and nothing else, so
// that it can be read as a layer: no metadata-only copies, no redirects. Index
// off lets the same lowers be used by many mounts at once.
var mountOptions = [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "off"}}

// maxLowers is the kernel's OVL_MAX_STACK.
const maxLowers = 500

func (overlay) name() string { return "overlay" }

func (overlay) status(root string) [][2]string {
	return [][2]string{
		{"Backing Filesystem", filesystemOf(root)},
		{"Using metacopy", "false"},
		{"Native Overlay Diff", "true"},
		{"userxattr", "false"},
	}
}

func (overlay) whiteouts() whiteoutStyle { return whiteoutNodes }

// probe mounts a small overlay, and makes below it what unpacking needs to
// make: a trusted xattr and a whiteout.
func (o overlay) probe(root string) (err error) {
	dir, err := os.MkdirTemp(root, ".probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.remove(dir)) }()
	lower := filepath.Join(dir, "lower")
	if err := os.MkdirAll(filepath.Join(lower, "diff"), 0o700); err != nil {
		return err
	}
	if err := unix.Setxattr(filepath.Join(lower, "diff"), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("setting %s: %w", opaqueXattr, err)
	}
	if err := unix.Mknod(filepath.Join(lower, "diff", "whiteout"), unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("making a whiteout: %w", err)
	}
	if err := o.makeDirs(dir, nil); err != nil {
		return err
	}
	_, err = o.mount(context.Background(), dir, []string{lower})
	return err
}

func (overlay) stage(_ context.Context, dir string, lowers []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return makeDiff(dir, lowers)
}

func (o overlay) create(_ context.Context, dir string, lowers []string) error {
	if len(lowers) > maxLowers {
		return errdefs.InvalidArgument.Errorf("the image has %d layers; overlayfs joins at most %d", len(lowers), maxLowers)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return o.makeDirs(dir, lowers)
}

func (overlay) makeDirs(dir string, lowers []string) error {
	for _, name := range []string{"work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
	}
	return makeDiff(dir, lowers)
}

// makeDiff makes dir/diff with owner and mode of the root below: overlayfs
// shows the uppermost directory's.
func makeDiff(dir string, lowers []string) error {
	diff := filepath.Join(dir, "diff")
	if err := os.Mkdir(diff, 0o755); err != nil {
		return err
	}
	if len(lowers) == 0 {
		return os.Chmod(diff, 0o755)
	}
	var below unix.Stat_t
	if err := unix.Lstat(filepath.Join(lowers[0], "diff"), &below); err != nil {
		return fmt.Errorf("reading the root below: %w", err)
	}
	if err := os.Chown(diff, int(below.Uid), int(below.Gid)); err != nil {
		return err
	}
	return unix.Chmod(diff, below.Mode&0o7777)
}

func (o overlay) mount(ctx context.Context, dir string, lowers []string) (string, error) {
	merged := filepath.Join(dir, "merged")
	mounted, err := mountinfo.Mounted(merged)
	if err != nil {
		return "", fmt.Errorf("looking at %s: %w", merged, err)
	}
	if mounted {
		return merged, nil
	}
	if len(lowers) == 0 {
		// overlayfs wants a lower one; an empty directory changes nothing.
		lowers = []string{filepath.Join(dir, "empty")}
		if err := os.MkdirAll(filepath.Join(lowers[0], "diff"), 0o755); err != nil {
			return "", err
		}
	}
	err = mountByParts(dir, lowers)
	if errors.Is(err, errNoMountByParts) {
		err = mountByString(dir, lowers)
	}
	if err != nil {
		return "", fmt.Errorf("mounting overlay on %s: %w", merged, err)
	}
	return merged, nil
}

// errNoMountByParts says that this kernel wants all lowers in one option
// string: fsopen came with Linux 5.2, overlayfs' "lowerdir+" with 6.8.
var errNoMountByParts = errors.New("the kernel does not take lower directories one by one")

// mountByParts hands lowers over one at a time: no limit but the kernel's own
// on their number, and no escaping of colons and commas.
func mountByParts(dir string, lowers []string) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return errNoMountByParts
	}
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	for i, lower := range lowers {
		err := unix.FsconfigSetString(fs, "lowerdir+", filepath.Join(lower, "diff"))
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return errNoMountByParts
		}
		if err != nil {
			return fmt.Errorf("lowerdir+ %s: %w", lower, withLog(fs, err))
		}
	}
	for _, option := range append([][2]string{{"source", "overlay"}, // what df prints
		{"upperdir", filepath.Join(dir, "diff")}, {"workdir", filepath.Join(dir, "work")}}, mountOptions...) {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return fmt.Errorf("%s=%s: %w", option[0], option[1], withLog(fs, err))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return withLog(fs, err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", withLog(fs, err))
	}
	defer unix.Close(mount)
	return unix.MoveMount(mount, "", unix.AT_FDCWD, filepath.Join(dir, "merged"), unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// withLog adds what the kernel has to say: reading an fsopen descriptor gives
// its messages, one each.
func withLog(fs int, err error) error {
	var text [1024]byte
	for {
		n, readErr := unix.Read(fs, text[:])
		if readErr != nil || n <= 0 {
			return err
		}
		err = fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(text[:n])))
	}
}

// mountByString is for older kernels. Their option string must fit a page, so
// paths are relative to the driver's root ("<16 hex>/diff", 170 of them fit),
// and mount(2) is called with that as working directory. A working directory
// belongs to the process: the call has a thread with its own (CLONE_FS), which
// ends with its goroutine because it is never unlocked.
func mountByString(dir string, lowers []string) error {
	root := filepath.Dir(dir)
	relative := make([]string, len(lowers))
	for i, lower := range lowers {
		rel, err := filepath.Rel(root, filepath.Join(lower, "diff"))
		if err != nil {
			return err
		}
		relative[i] = rel
	}
	name := filepath.Base(dir)
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/diff,workdir=%s/work", strings.Join(relative, ":"), name, name)
	for _, option := range mountOptions {
		options += "," + option[0] + "=" + option[1]
	}
	if len(options) >= os.Getpagesize() {
		return errdefs.InvalidArgument.Errorf("%d layers do not fit into this kernel's mount options; Linux 6.8 takes %d", len(lowers), maxLowers)
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			result <- fmt.Errorf("unshare: %w", err)
			return
		}
		if err := unix.Chdir(root); err != nil {
			result <- err
			return
		}
		result <- unix.Mount("overlay", filepath.Join(name, "merged"), "overlay", 0, options)
	}()
	return <-result
}

// unmount asks nicely first. A busy mount (somebody's working directory in it)
// is detached: it goes when its last user goes, and the name is free at once.
func (overlay) unmount(dir string) error {
	merged := filepath.Join(dir, "merged")
	err := unix.Unmount(merged, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(merged, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// EINVAL: not a mount point.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", merged, err)
	}
	return nil
}

func (o overlay) remove(dir string) error {
	if err := o.unmount(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (overlay) size(ctx context.Context, dir string, _ []string) (int64, error) {
	return treeSize(ctx, filepath.Join(dir, "diff"))
}

func (overlay) describe(dir string, lowers []string, writable bool) map[string]string {
	data := map[string]string{"UpperDir": filepath.Join(dir, "diff")}
	below := make([]string, len(lowers))
	for i, lower := range lowers {
		below[i] = filepath.Join(lower, "diff")
	}
	if len(below) > 0 {
		data["LowerDir"] = strings.Join(below, ":")
	}
	if writable {
		data["WorkDir"] = filepath.Join(dir, "work")
		data["MergedDir"] = filepath.Join(dir, "merged")
	}
	return data
}

// filesystemOf names the file system a path is on, as docker info does.
func filesystemOf(path string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.F2FS_SUPER_MAGIC: "f2fs",
		0x2fc12fc1: "zfs",
	}
	if name, known := names[stat.Type]; known {
		return name
	}
	return fmt.Sprintf("0x%x", stat.Type)
}
