package layer

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// driver makes and joins file trees. Directories are absolute paths under the
// store's root, made and removed by the driver; lowers are the directories of
// the read-only layers below, top first. Calls for one directory that is
// written never overlap; a read-only one may be read and joined by many.
//
// A driver keeps nothing in memory that the directories do not say: a new
// process goes on where the last one was killed.
type driver interface {
	// status is what docker info prints below the name.
	status() [][2]string
	// stage makes dir with a directory diff, seen at once, to unpack a layer into.
	stage(ctx context.Context, dir string, lowers []string) error
	// whiteouts says how a deletion in a layer's tar is kept in its diff.
	whiteouts() whiteoutStyle
	// create makes dir for a container's writable layer of at most size bytes;
	// 0 is what the driver's options say, or no limit.
	create(ctx context.Context, dir string, lowers []string, size int64) error
	// mount returns where the joined tree is seen; again if it is there already.
	mount(ctx context.Context, dir string, lowers []string) (string, error)
	// unmount undoes mount, and what stage left visible; nothing to do is no
	// error. What somebody uses is detached, and goes with its last user.
	unmount(dir string) error
	// read gives the files of dir's diff, whether it is mounted or not, until
	// done is called.
	read(ctx context.Context, dir string) (tree string, done func() error, err error)
	// check says what dir misses of what stage or create made.
	check(dir string) error
	// remove unmounts and deletes dir, of either sort; a missing one is no error.
	remove(dir string) error
	// below gives the names of the read-only layers' directories that mounts
	// need, whatever became of their rows. Such are not removed.
	below() (map[string]bool, error)
	// size is what a writable layer takes by itself.
	size(ctx context.Context, dir string, lowers []string) (int64, error)
	// describe gives Docker's GraphDriver data.
	describe(dir string, lowers []string, writable bool) map[string]string
	// close ends the driver; what is mounted stays.
	close() error
}

// whiteoutStyle is what unpacking makes of a deletion.
type whiteoutStyle int

const (
	whiteoutNodes   whiteoutStyle = iota // overlayfs: char 0:0 and trusted.overlay.opaque
	whiteoutDeletes                      // the tree below is a copy: delete there
)

// kind is one sort of driver.
type kind struct {
	name    string
	options []string // of --storage-opt
	// probe says why the driver cannot work under root, and what would help.
	probe func(root string) error
	// open makes the driver for dir, <data root>/<name>, which is there.
	open func(dir string, options map[string]string, log *slog.Logger) (driver, error)
}

// kinds in the order in which they are tried, except the last three: thin pools
// are to be planned by somebody, and two are told why there is none.
var kinds = []kind{
	{"overlay2", []string{"overlay2.size", "overlay2.override_kernel_check", "overlay2.volatile"}, probeOverlay, openOverlay},
	{"btrfs", []string{"btrfs.min_space"}, probeBtrfs, openBtrfs},
	{"vfs", []string{"size"}, probeVFS, openVFS},
	{"devicemapper", thinOptions, probeThin, openThin},
	{"zfs", nil, probeZFS, nil},
	{"aufs", nil, probeAUFS, nil},
}

const automatic = 3 // so many kinds are tried

// choose returns the kind called want; with no wish the one that has data
// under root, else the first that works there.
func choose(root, want string) (*kind, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("making the data root: %w", err)
	}
	if want != "" {
		return named(root, want)
	}
	var prior []string
	for _, k := range kinds {
		if hasData(filepath.Join(root, k.name)) {
			prior = append(prior, k.name)
		}
	}
	switch len(prior) {
	case 0:
		return firstWorking(root)
	case 1:
		return named(root, prior[0])
	}
	return nil, errdefs.InvalidArgument.Errorf("%s contains several valid graphdrivers: %s; please clean up or choose one with --storage-driver", root, strings.Join(prior, ", "))
}

// hasData is false for a directory that was claimed and never used.
func hasData(dir string) bool {
	entries, _ := os.ReadDir(dir) // mostly there is none
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != marker })
}

func firstWorking(root string) (*kind, error) {
	var reasons []string
	for i := range kinds[:automatic] {
		err := kinds[i].probe(root)
		if err == nil {
			return &kinds[i], nil
		}
		reasons = append(reasons, kinds[i].name+": "+err.Error())
	}
	return nil, errdefs.FailedPrecondition.Errorf("no storage driver works under %s: %s", root, strings.Join(reasons, "; "))
}

func named(root, want string) (*kind, error) {
	if want == "overlay" { // the same for whoever asks for it by the kernel's name
		want = "overlay2"
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == want })
	if i < 0 {
		var known []string
		for _, k := range kinds {
			if k.open != nil {
				known = append(known, k.name)
			}
		}
		return nil, errdefs.InvalidArgument.Errorf("unknown storage driver %q: expected one of %s", want, strings.Join(known, ", "))
	}
	if err := kinds[i].probe(root); err != nil {
		return nil, fmt.Errorf("storage driver %s does not work under %s: %w", want, root, err)
	}
	return &kinds[i], nil
}

// parseOptions reads --storage-opt. Each must be the kind's own: an option
// that changes nothing would be believed.
func (k *kind) parseOptions(given []string) (map[string]string, error) {
	options := map[string]string{}
	for _, option := range given {
		key, value, found := strings.Cut(option, "=")
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		if !found || key == "" {
			return nil, errdefs.InvalidArgument.Errorf("storage-opt: unable to parse key/value option: %s", option)
		}
		if !slices.Contains(k.options, key) {
			return nil, errdefs.InvalidArgument.Errorf("storage-opt: %s: unknown option %s (known are: %s)", k.name, key, strings.Join(k.options, ", "))
		}
		options[key] = value
	}
	return options, nil
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
		unix.NFS_SUPER_MAGIC: "nfs", unix.V9FS_MAGIC: "9p", unix.FUSE_SUPER_MAGIC: "fuse", zfsMagic: "zfs",
	}
	if name, known := names[stat.Type]; known {
		return name
	}
	return fmt.Sprintf("0x%x", stat.Type)
}

const zfsMagic = 0x2fc12fc1

// kernelHas says whether the kernel knows the file system, after asking it to
// load the module: mounting or opening it by name does that.
func kernelHas(filesystem string) bool {
	fd, err := unix.Fsopen(filesystem, unix.FSOPEN_CLOEXEC)
	if err == nil {
		_ = unix.Close(fd)
		return true
	}
	known, err := os.ReadFile("/proc/filesystems")
	return err == nil && slices.Contains(strings.Fields(string(known)), filesystem)
}

// checkDiff is check of drivers whose layers are a directory diff.
func checkDiff(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, "diff"))
	return err
}

// diffOf returns the tree of the uppermost of lowers, "" if there is none.
func diffOf(lowers []string) string {
	if len(lowers) == 0 {
		return ""
	}
	return filepath.Join(lowers[0], "diff")
}

func nothing() error { return nil }
