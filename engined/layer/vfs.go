package layer

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/layer/quota"
	"github.com/engined/engined/proto/errdefs"
)

// vfs joins layers by copying: each has the whole tree below it. It works on
// every file system and is slow; where blocks can be shared (FICLONE) it costs
// little more than the names.
type vfs struct {
	dir   string // <data root>/vfs
	limit int64  // default size of a writable layer, with all that is below
}

func probeVFS(root string) error {
	if err := unix.Access(root, unix.W_OK); err != nil {
		return errdefs.FailedPrecondition.Errorf("writing there: %w", err)
	}
	return nil
}

func openVFS(dir string, options map[string]string, _ *slog.Logger) (driver, error) {
	v := vfs{dir: dir}
	if text, given := options["size"]; given {
		var err error
		if v.limit, err = parseSize("size", text); err != nil {
			return nil, err
		}
		if err := v.limitable(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (v vfs) limitable() error {
	if err := quota.Supported(v.dir); err != nil {
		return errNoLimit("vfs over xfs with 'pquota' mount option or ext4 with 'prjquota'", err)
	}
	return nil
}

func (vfs) status() [][2]string      { return nil } // as dockerd
func (vfs) whiteouts() whiteoutStyle { return whiteoutDeletes }
func (vfs) unmount(string) error     { return nil }
func (vfs) check(dir string) error   { return checkDiff(dir) }
func (vfs) close() error             { return nil }

func (v vfs) stage(ctx context.Context, dir string, lowers []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return v.fill(ctx, dir, lowers)
}

func (vfs) fill(ctx context.Context, dir string, lowers []string) error {
	if err := makeDiff(dir, lowers); err != nil || len(lowers) == 0 {
		return err
	}
	return copyTree(ctx, diffOf(lowers), filepath.Join(dir, "diff"))
}

// create limits the directory while it is empty: what is made in it later
// counts, the copy of the layers below too.
func (v vfs) create(ctx context.Context, dir string, lowers []string, size int64) error {
	if size == 0 {
		size = v.limit
	} else if err := v.limitable(); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if size > 0 {
		if err := quota.Set(size, dir); err != nil {
			return err
		}
	}
	return classify(v.fill(ctx, dir, lowers))
}

func (v vfs) mount(_ context.Context, dir string, _ []string) (string, error) {
	return filepath.Join(dir, "diff"), v.check(dir)
}

func (vfs) read(_ context.Context, dir string) (string, func() error, error) {
	return filepath.Join(dir, "diff"), nothing, nil
}

func (vfs) remove(dir string) error {
	if err := quota.Clear(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

func (vfs) size(ctx context.Context, dir string, lowers []string) (int64, error) {
	return addedSize(ctx, filepath.Join(dir, "diff"), diffOf(lowers))
}

// below is nothing: a writable layer has a copy of what is below it.
func (vfs) below() (map[string]bool, error) { return nil, nil }

func (vfs) describe(string, []string, bool) map[string]string { return nil }
