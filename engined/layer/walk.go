package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// node is a file as a walk meets it. dir stays open while it is looked at.
type node struct {
	dir  int    // descriptor of its directory
	base string // its name there
	path string // from the root of the tree, without a slash in front
	stat unix.Stat_t
}

func (n *node) kind() uint32     { return n.stat.Mode & unix.S_IFMT }
func (n *node) isDir() bool      { return n.kind() == unix.S_IFDIR }
func (n *node) isWhiteout() bool { return n.kind() == unix.S_IFCHR && n.stat.Rdev == 0 }
func (n *node) inode() inodeOf   { return inodeOf{n.stat.Dev, n.stat.Ino} }
func (n *node) readlink() (string, error) {
	for size := 256; ; size *= 4 {
		target := make([]byte, size)
		length, err := unix.Readlinkat(n.dir, n.base, target)
		if errors.Is(err, unix.EINVAL) {
			return "", errReplaced // no link any more
		}
		if err != nil {
			return "", err
		}
		if length < size {
			return string(target[:length]), nil
		}
	}
}

// open opens a regular file, and makes sure that it is still that file: a
// running container may put something else in its place at any time.
func (n *node) open() (*os.File, error) {
	fd, err := unix.Openat(n.dir, n.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &n.stat); err != nil || n.kind() != unix.S_IFREG {
		_ = unix.Close(fd)
		return nil, errors.Join(err, errReplaced)
	}
	return os.NewFile(uintptr(fd), n.path), nil
}

type inodeOf struct{ device, number uint64 }

// errReplaced says that a file went, or became another, since it was seen.
var errReplaced = errors.New("replaced meanwhile")

// gone is true for what befalls a file that a running container removes or
// replaces while it is read: then it is left out, as if it had gone before.
func gone(err error) bool {
	for _, is := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENXIO, unix.ESTALE, errReplaced} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// walk calls visit for every file below the directory root, by name, each
// directory before what is in it. Each step goes from one directory's
// descriptor to the next, so a path that changes meanwhile leads nowhere else.
func walk(ctx context.Context, root int, visit func(*node) error) error {
	return walkBelow(ctx, root, "", visit)
}

func walkBelow(ctx context.Context, dir int, at string, visit func(*node) error) error {
	return eachNode(ctx, dir, at, func(n *node) error {
		if err := visit(n); err != nil || !n.isDir() {
			return err
		}
		return n.enter(func(fd int) error { return walkBelow(ctx, fd, n.path, visit) })
	})
}

// maxDepth bounds the descriptors that a walk has open: a tree can be deeper
// than any path is long.
const maxDepth = 4096

// eachNode calls do for every file in one directory, by name. What a running
// container removes or replaces meanwhile is left out.
func eachNode(ctx context.Context, dir int, at string, do func(*node) error) error {
	if strings.Count(at, "/") > maxDepth {
		return fmt.Errorf("%.100q...: more than %d directories in one another", at, maxDepth)
	}
	names, err := namesIn(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := &node{dir: dir, base: base, path: path.Join(at, base)}
		err := unix.Fstatat(dir, base, &n.stat, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = do(n)
		}
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// enter opens the directory for the time of do.
func (n *node) enter(do func(fd int) error) error {
	fd, err := openBelow(n.dir, n.base)
	if err != nil {
		return &os.PathError{Op: "open", Path: n.path, Err: err}
	}
	defer unix.Close(fd)
	return do(fd)
}

// openBelow opens the directory base in dir, and nothing that a link names.
func openBelow(dir int, base string) (int, error) {
	return unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// xattrs returns the extended attributes that belong into an archive.
func (n *node) xattrs() (map[string]string, error) {
	at := atPath(n.dir, n.base)
	if length, err := unix.Llistxattr(at, nil); length == 0 && err == nil {
		return nil, nil //nolint:nilnil // none, as most have
	}
	names := make([]byte, 64<<10) // the kernel's XATTR_LIST_MAX
	length, err := unix.Llistxattr(at, names)
	if errors.Is(err, unix.ENOTSUP) || length == 0 {
		return nil, nil //nolint:nilnil // none
	}
	if err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: n.path, Err: err}
	}
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:length]), "\x00"), "\x00") {
		if !portable(name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		length, err := unix.Lgetxattr(at, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "lgetxattr " + name, Path: n.path, Err: err}
		}
		found[name] = string(value[:length])
	}
	return found, nil
}

// portable is true for attributes that mean the same on another machine: not
// overlayfs' own, and not labels of this machine's security modules. A name with
// = in it has no spelling in a tar.
func portable(name string) bool {
	if strings.Contains(name, "=") {
		return false
	}
	switch name {
	case "security.selinux", "security.ima", "security.evm", "security.SMACK64":
		return false
	}
	return !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

// isOpaque is true for a directory of overlayfs that hides what is below it.
func (n *node) isOpaque() bool {
	var value [1]byte
	length, err := unix.Lgetxattr(atPath(n.dir, n.base), opaqueXattr, value[:])
	return err == nil && length == 1 && value[0] == 'y'
}

// padded reads as many bytes as were promised: a file that was cut meanwhile
// ends in zeros, one that grew ends where it did.
func padded(file io.Reader, size int64) io.Reader {
	return io.LimitReader(io.MultiReader(file, zeroReader{}), size)
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
