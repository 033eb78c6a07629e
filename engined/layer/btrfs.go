package layer

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	units "github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/subvolume"
	"github.com/engined/engined/proto/errdefs"
)

// btrfs keeps the whole tree of each layer in a subvolume, dir/diff: a snapshot
// of the one below shares everything with it.
type btrfs struct {
	minimum int64 // of a writable layer's size, btrfs.min_space
}

func probeBtrfs(root string) error {
	if !kernelHas("btrfs") {
		return errdefs.FailedPrecondition.Errorf("the kernel has no btrfs (modprobe btrfs; CONFIG_BTRFS_FS)")
	}
	if fs := filesystemOf(root); fs != "btrfs" {
		return errdefs.FailedPrecondition.Errorf("the data root is on %s, not on btrfs: mount one there (mkfs.btrfs is in Debian's btrfs-progs), or choose another --data-root", fs)
	}
	return nil
}

func openBtrfs(_ string, options map[string]string, _ *slog.Logger) (driver, error) {
	b := btrfs{}
	if text, given := options["btrfs.min_space"]; given {
		var err error
		if b.minimum, err = parseSize("btrfs.min_space", text); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (btrfs) status() [][2]string      { return [][2]string{{"Btrfs", ""}} }
func (btrfs) whiteouts() whiteoutStyle { return whiteoutDeletes }
func (btrfs) unmount(string) error     { return nil }
func (btrfs) check(dir string) error   { return checkDiff(dir) }
func (btrfs) close() error             { return nil }

func (b btrfs) stage(ctx context.Context, dir string, lowers []string) error {
	return b.create(ctx, dir, lowers, 0)
}

func (b btrfs) create(_ context.Context, dir string, lowers []string, size int64) error {
	if size > 0 && size < b.minimum {
		return errdefs.InvalidArgument.Errorf("btrfs: storage size cannot be less than %s (btrfs.min_space)", units.HumanSize(float64(b.minimum)))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	diff := filepath.Join(dir, "diff")
	if len(lowers) > 0 {
		if err := subvolume.Snapshot(filepath.Join(lowers[0], "diff"), diff); err != nil {
			return err
		}
	} else if err := makeEmpty(diff); err != nil {
		return err
	}
	if size == 0 {
		return nil
	}
	return subvolume.Limit(diff, size)
}

// makeEmpty makes a subvolume whose mode no umask has touched.
func makeEmpty(path string) error {
	if err := subvolume.Create(path); err != nil {
		return err
	}
	return unix.Chmod(path, 0o755)
}

func (b btrfs) mount(_ context.Context, dir string, _ []string) (string, error) {
	return filepath.Join(dir, "diff"), b.check(dir)
}

func (btrfs) read(_ context.Context, dir string) (string, func() error, error) {
	return filepath.Join(dir, "diff"), nothing, nil
}

func (btrfs) remove(dir string) error {
	if diff := filepath.Join(dir, "diff"); subvolume.Is(diff) {
		if err := subvolume.Delete(diff); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func (btrfs) size(ctx context.Context, dir string, lowers []string) (int64, error) {
	return addedSize(ctx, filepath.Join(dir, "diff"), diffOf(lowers))
}

// below is nothing: a writable layer has a copy of what is below it.
func (btrfs) below() (map[string]bool, error) { return nil, nil }

func (btrfs) describe(string, []string, bool) map[string]string { return nil }
