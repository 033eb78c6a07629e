package layer

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/quota"
	"github.com/engined/engined/proto/errdefs"
)

// overlay joins layers with the kernel's overlayfs. Docker calls that overlay2.
type overlay struct {
	dir      string // <data root>/overlay2
	limit    int64  // default size of a writable layer, overlay2.size
	volatile bool   // nothing in a writable layer is synced, overlay2.volatile
}

// mountOptions make the upper directory hold whole files and nothing else, so
// that it can be read as a layer: no metadata-only copies, no redirects (a
// renamed directory is copied by whoever renames it, after EXDEV). Index off
// lets the same lowers be used by many mounts at once. All three have defaults
// that differ from kernel to kernel, so they are said.
var mountOptions = [][2]string{{"index", "off"}, {"metacopy", "off"}, {"redirect_dir", "off"}}

// maxLowers is the kernel's OVL_MAX_STACK.
const maxLowers = 500

func openOverlay(dir string, options map[string]string, _ *slog.Logger) (driver, error) {
	o := overlay{dir: dir}
	for key, text := range options {
		var err error
		switch key {
		case "overlay2.size":
			if o.limit, err = parseSize(key, text); err == nil {
				err = o.limitable()
			}
		case "overlay2.volatile":
			o.volatile, err = parseTruth(key, text)
		case "overlay2.override_kernel_check":
			_, err = parseTruth(key, text) // Docker's; here the probe looks at the kernel itself
		}
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// limitable says why writable layers cannot be limited, or nil.
func (o overlay) limitable() error {
	if err := quota.Supported(o.dir); err != nil {
		return errNoLimit("overlay over xfs with 'pquota' mount option or ext4 with 'prjquota'", err)
	}
	return nil
}

func (o overlay) status() [][2]string {
	return [][2]string{
		{"Backing Filesystem", filesystemOf(o.dir)},
		{"Supports d_type", "true"}, // or the probe had refused
		{"Using metacopy", "false"},
		{"Native Overlay Diff", "true"},
		{"userxattr", "false"},
	}
}

func (overlay) whiteouts() whiteoutStyle { return whiteoutNodes }
func (overlay) check(dir string) error   { return checkDiff(dir) }
func (overlay) close() error             { return nil }

func (overlay) stage(_ context.Context, dir string, lowers []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return makeDiff(dir, lowers)
}

func (o overlay) create(_ context.Context, dir string, lowers []string, size int64) error {
	if len(lowers) > maxLowers {
		return errdefs.InvalidArgument.Errorf("the image has %d layers; overlayfs joins at most %d", len(lowers), maxLowers)
	}
	if size == 0 {
		size = o.limit
	} else if err := o.limitable(); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := o.makeDirs(dir, lowers); err != nil || size == 0 {
		return err
	}
	// work, too: files are made there and moved, which no project allows
	// across its border.
	return quota.Set(size, filepath.Join(dir, "diff"), filepath.Join(dir, "work"))
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

func (o overlay) mount(_ context.Context, dir string, lowers []string) (string, error) {
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
	options, err := o.optionsFor(dir)
	if err != nil {
		return "", err
	}
	if err := mountOverlay(dir, lowers, options); err != nil {
		return "", fmt.Errorf("mounting overlay on %s: %w", merged, err)
	}
	return merged, nil
}

// optionsFor adds what this layer's mount needs to mountOptions. A volatile
// mount leaves a mark that only an orderly unmount takes away: where it is
// found, the machine went down while files were in memory alone.
func (o overlay) optionsFor(dir string) ([][2]string, error) {
	if _, err := os.Lstat(volatileMark(dir)); err == nil {
		return nil, errdefs.DataLoss.Errorf("what this container wrote was not synced (overlay2.volatile), and the machine went down meanwhile: remove the container")
	}
	if !o.volatile {
		return mountOptions, nil
	}
	return append(slices.Clone(mountOptions), [2]string{"volatile", ""}), nil
}

// volatileMark is where the kernel says that an upper directory is not synced.
func volatileMark(dir string) string {
	return filepath.Join(dir, "work", "work", "incompat", "volatile")
}

func (overlay) unmount(dir string) error {
	if err := unmountAt(filepath.Join(dir, "merged")); err != nil {
		return err
	}
	return settleVolatile(dir)
}

// settleVolatile writes what a volatile mount left in memory, and removes its
// mark, as the kernel's overlayfs.rst allows to who knows that nothing is lost.
// Layers that were not mounted so have no mark.
func settleVolatile(dir string) error {
	if _, err := os.Lstat(volatileMark(dir)); err != nil {
		return nil // nothing to settle
	}
	fd, err := unix.Open(filepath.Join(dir, "diff"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the layer: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("writing what a volatile mount left in memory: %w", err)
	}
	return os.RemoveAll(volatileMark(dir))
}

func (o overlay) remove(dir string) error {
	if err := o.unmount(dir); err != nil {
		return err
	}
	if err := quota.Clear(filepath.Join(dir, "diff")); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (overlay) read(_ context.Context, dir string) (string, func() error, error) {
	return filepath.Join(dir, "diff"), nothing, nil
}

func (overlay) size(ctx context.Context, dir string, _ []string) (int64, error) {
	return treeSize(ctx, filepath.Join(dir, "diff"))
}

// lowerNames finds layers in the options that the kernel shows for a mount:
// lowerdir= with a list, or lowerdir+= for each, of whole or relative paths.
var lowerNames = regexp.MustCompile(`[=:/]([0-9a-f]{16})/diff(?:[:,]|$)`)

// below asks the kernel: containers live longer than this process, and longer
// than the rows that their mounts were made from.
func (overlay) below() (map[string]bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, mount := range mounts {
		for _, name := range lowersIn(mount.VFSOptions) {
			names[name] = true
		}
	}
	return names, nil
}

func lowersIn(options string) (names []string) {
	for {
		at := lowerNames.FindStringSubmatchIndex(options)
		if at == nil {
			return names
		}
		names = append(names, options[at[2]:at[3]])
		options = options[at[3]:] // what ends one may begin the next
	}
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
