package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// copyTree copies everything below from into to, which exists. Nobody else
// writes in either; links are copied, never followed.
func copyTree(ctx context.Context, from, to string) error {
	type name struct{ device, inode uint64 }
	linked := map[name]string{} // first copy of each inode with several names
	var directories []string    // their times are set last: filling them changes them
	err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			directories = append(directories, path)
		} else if stat.Nlink > 1 {
			key := name{stat.Dev, stat.Ino}
			if first, done := linked[key]; done {
				return os.Link(first, target)
			}
			linked[key] = target
		}
		return copyOne(path, target, &stat)
	})
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	for i := len(directories) - 1; i >= 0; i-- {
		var stat unix.Stat_t
		if err := unix.Lstat(directories[i], &stat); err != nil {
			return err
		}
		if err := copyTimes(filepath.Join(to, strings.TrimPrefix(directories[i], from)), &stat); err != nil {
			return err
		}
	}
	return nil
}

func copyOne(from, to string, stat *unix.Stat_t) error {
	if err := copyContent(from, to, stat); err != nil {
		return &fs.PathError{Op: "copy", Path: from, Err: err}
	}
	if err := unix.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil {
		return &fs.PathError{Op: "lchown", Path: to, Err: err}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, stat.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	return copyTimes(to, stat)
}

func copyContent(from, to string, stat *unix.Stat_t) error {
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case unix.S_IFREG:
		return copyFile(from, to)
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	default: // devices, fifos, sockets
		return unix.Mknod(to, stat.Mode, int(stat.Rdev))
	}
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if unix.IoctlFileClone(int(target.Fd()), int(source.Fd())) == nil {
		return nil // btrfs, xfs with reflink: the blocks are shared
	}
	return copySparse(source, target)
}

// copySparse copies the parts of a file that hold data; the rest stay holes.
func copySparse(source, target *os.File) error {
	info, err := source.Stat()
	if err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		start, err := unix.Seek(int(source.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(source.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyPart(source, target, start, end-start); err != nil {
			return err
		}
		at = end
	}
	return target.Truncate(info.Size())
}

func copyPart(source, target *os.File, start, size int64) error {
	if _, err := source.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if _, err := target.Seek(start, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(target, source, size)
	return err
}

func copyTimes(path string, stat *unix.Stat_t) error {
	times := []unix.Timespec{stat.Atim, stat.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

func copyXattrs(from, to string) error {
	names := make([]byte, 64<<10) // the kernel's XATTR_LIST_MAX
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "llistxattr", Path: from, Err: err}
	}
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(from, name, value)
		if err != nil {
			return &fs.PathError{Op: "lgetxattr " + name, Path: from, Err: err}
		}
		if err := unix.Lsetxattr(to, name, value[:n], 0); err != nil {
			return &fs.PathError{Op: "lsetxattr " + name, Path: to, Err: err}
		}
	}
	return nil
}
