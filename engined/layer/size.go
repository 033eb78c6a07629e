package layer

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
)

// TreeSize adds up the files under dir, as the sizes of layers are.
func TreeSize(ctx context.Context, dir string) (int64, error) { return treeSize(ctx, dir) }

// treeSize adds up the files under dir as Docker does: apparent sizes, each
// inode once, directories not at all.
func treeSize(ctx context.Context, dir string) (total int64, err error) {
	return addedSize(ctx, dir, "")
}

// addedSize is treeSize without the files that are the same below: dir is a
// copy of that tree, changed since.
func addedSize(ctx context.Context, dir, below string) (total int64, err error) {
	seen := map[uint64]bool{} // inodes with several names
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && isGone(err) {
				return nil // a running container removes files meanwhile
			}
			return err
		}
		if entry.IsDir() {
			return ctx.Err()
		}
		info, err := entry.Info()
		if isGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		if stat.Nlink > 1 && seen[stat.Ino] {
			return nil
		}
		if stat.Nlink > 1 {
			seen[stat.Ino] = true
		}
		if below == "" || !unchanged(stat, filepath.Join(below, strings.TrimPrefix(path, dir))) {
			total += info.Size()
		}
		return nil
	})
	return total, err
}

// unchanged compares what no writer leaves alone: copies and snapshots keep the
// time of the last change to the content.
func unchanged(stat *syscall.Stat_t, below string) bool {
	var old syscall.Stat_t
	return syscall.Lstat(below, &old) == nil && old.Mode&syscall.S_IFMT == stat.Mode&syscall.S_IFMT &&
		old.Size == stat.Size && old.Mtim == stat.Mtim
}
