package layer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// errNoMountByParts says that this kernel wants all lowers in one option
// string: fsopen came with Linux 5.2, overlayfs' "lowerdir+" with 6.8.
var errNoMountByParts = errors.New("the kernel does not take lower directories one by one")

// mountByParts hands lowers over one at a time: no limit but the kernel's own
// on their number, and no escaping of colons and commas.
func mountByParts(dir string, lowers []string, options [][2]string) error {
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
		{"upperdir", filepath.Join(dir, "diff")}, {"workdir", filepath.Join(dir, "work")}}, options...) {
		if err := configure(fs, option); err != nil {
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

// configure sets an option; one without a value is a flag.
func configure(fs int, option [2]string) error {
	if option[1] == "" {
		return unix.FsconfigSetFlag(fs, option[0])
	}
	return unix.FsconfigSetString(fs, option[0], option[1])
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
func mountByString(dir string, lowers []string, extra [][2]string) error {
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
	for _, option := range extra {
		options += "," + strings.TrimSuffix(option[0]+"="+option[1], "=")
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
