package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// placeholders are what a runtime makes to mount something there: not the
// container's doing, and so no part of its changes. dockerd hides them in a layer
// of their own between the image and the container.
var placeholders = map[string]uint32{
	"dev": unix.S_IFDIR, "dev/pts": unix.S_IFDIR, "dev/shm": unix.S_IFDIR, "proc": unix.S_IFDIR, "sys": unix.S_IFDIR, "etc": unix.S_IFDIR,
	"dev/console": unix.S_IFREG, "etc/resolv.conf": unix.S_IFREG, "etc/hosts": unix.S_IFREG, "etc/hostname": unix.S_IFREG,
}

// isPlaceholder is true for a file that may be one: an empty one, or a directory
// that is not known to be more. What it holds decides then.
func isPlaceholder(n *node) bool {
	kind, listed := placeholders[n.path]
	return listed && kind == n.kind() && (n.isDir() || n.stat.Size == 0)
}

// WriteDiff writes what a container changed as a layer's tar: files as they are
// now, deletions as whiteouts. The container should be frozen, or not run.
func (s *Store) WriteDiff(ctx context.Context, id string, to io.Writer) error {
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return err
	}
	_, lowers, err := s.writable(ctx, id)
	unlock()
	if err != nil {
		return err
	}
	d := &differ{ctx: ctx, out: newArchiver(to)}
	if s.driver.whiteouts() == whiteoutNodes {
		err = s.diffUpper(ctx, d, id, lowers)
	} else {
		err = s.diffTrees(ctx, d, id, lowers)
	}
	if err != nil {
		return fmt.Errorf("archiving the changes of %s: %w", id, err)
	}
	return s.finish(ctx, id, d.out)
}

// finish ends an archive, unless the container went while it was read: what it
// lacks then is not what the container had removed.
func (s *Store) finish(ctx context.Context, id string, a *archiver) error {
	if _, _, err := s.writable(ctx, id); err != nil {
		return fmt.Errorf("archiving %s, which was removed meanwhile: %w", id, err)
	}
	return a.tar.Close()
}

func (s *Store) dirOf(id string) string { return filepath.Join(s.root, id) }

// hasMounts is true if something is mounted below dir.
func hasMounts(dir string) (bool, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	return len(mounts) > 0, err
}

// diffTrees is WriteDiff for drivers whose writable layers are whole trees.
func (s *Store) diffTrees(ctx context.Context, d *differ, id string, lowers []string) error {
	now, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer unix.Close(now)
	if len(lowers) == 0 {
		return d.compare(now, -1, "")
	}
	return s.reading(ctx, lowers[0], func(before int) error { return d.compare(now, before, "") })
}

// diffUpper is WriteDiff for overlays.
func (s *Store) diffUpper(ctx context.Context, d *differ, id string, lowers []string) error {
	below := make([]string, len(lowers))
	for i, lower := range lowers {
		below[i] = filepath.Join(lower, "diff")
	}
	return s.reading(ctx, s.dirOf(id), func(root int) error { return d.upper(root, "", below) })
}

// reading opens the files of a layer for the time of do.
func (s *Store) reading(ctx context.Context, dir string, do func(root int) error) (err error) {
	tree, done, err := s.driver.read(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	root, err := openTree(tree)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return do(root)
}

func openTree(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// differ writes changes. Directories that may be placeholders, or are unchanged
// themselves, wait until something in them is written.
type differ struct {
	ctx     context.Context // of the call that the differ is
	out     *archiver
	waiting []*node
}

// emit writes a file, after the directories that it is in.
func (d *differ) emit(n *node) error {
	if err := d.flush(); err != nil {
		return err
	}
	return d.out.add(n)
}

func (d *differ) flush() error {
	for _, dir := range d.waiting {
		if err := d.out.add(dir); err != nil {
			return err
		}
	}
	d.waiting = nil
	return nil
}

// later lets a directory wait while what is in it is looked at.
func (d *differ) later(n *node, inside func() error) error {
	d.waiting = append(d.waiting, n)
	err := inside()
	if last := len(d.waiting) - 1; last >= 0 && d.waiting[last] == n {
		d.waiting = d.waiting[:last]
	}
	return err
}

// upper reads changes from the upper directory of an overlay.
func (d *differ) upper(dir int, at string, lowers []string) error {
	return eachNode(d.ctx, dir, at, func(n *node) error {
		inside := func() error {
			return n.enter(func(fd int) error { return d.upper(fd, n.path, lowers) })
		}
		switch {
		case n.isWhiteout():
			return errors.Join(d.flush(), d.out.whiteout(n.path))
		case !n.isDir():
			if isPlaceholder(n) {
				return nil
			}
			return d.emit(n)
		case n.isOpaque():
			if err := d.emit(n); err != nil {
				return err
			}
			if err := d.out.opaque(n.path); err != nil {
				return err
			}
			return inside()
		case isPlaceholder(n) && !changedDirectory(n, lowers):
			return d.later(n, inside)
		}
		if err := d.emit(n); err != nil {
			return err
		}
		return inside()
	})
}

// changedDirectory is true if the uppermost directory of that path below has
// other attributes.
func changedDirectory(n *node, lowers []string) bool {
	for _, lower := range lowers {
		root, err := openTree(lower)
		if err != nil {
			return true
		}
		fd, err := inRoot(root, n.path, unix.O_PATH|unix.O_NOFOLLOW)
		_ = unix.Close(root)
		if err != nil {
			continue
		}
		var below unix.Stat_t
		err = unix.Fstat(fd, &below)
		_ = unix.Close(fd)
		return err != nil || differs(&n.stat, &below)
	}
	return false
}

// compare finds the changes between two directories; before is -1 for none.
func (d *differ) compare(now, before int, at string) error {
	gone, err := missing(now, before)
	if err != nil {
		return err
	}
	for _, base := range gone {
		if err := errors.Join(d.flush(), d.out.whiteout(filepath.Join(at, base))); err != nil {
			return err
		}
	}
	return eachNode(d.ctx, now, at, func(n *node) error { return d.compareOne(n, before) })
}

func (d *differ) compareOne(n *node, before int) error {
	var below unix.Stat_t
	known := before >= 0 && unix.Fstatat(before, n.base, &below, unix.AT_SYMLINK_NOFOLLOW) == nil
	same := known && !differs(&n.stat, &below)
	if same {
		var err error
		if same, err = sameAttributes(n, &node{dir: before, base: n.base, path: n.path}); err != nil {
			return err
		}
	}
	if !n.isDir() {
		if same || !known && isPlaceholder(n) {
			return nil
		}
		return d.emit(n)
	}
	inside := func() error {
		return n.enter(func(fd int) error {
			if !known || below.Mode&unix.S_IFMT != unix.S_IFDIR {
				return d.compare(fd, -1, n.path)
			}
			lower, err := openBelow(before, n.base)
			if err != nil {
				return err
			}
			defer unix.Close(lower)
			return d.compare(fd, lower, n.path)
		})
	}
	if same || !known && isPlaceholder(n) {
		return d.later(n, inside)
	}
	if err := d.emit(n); err != nil {
		return err
	}
	return inside()
}

// sameAttributes compares what setcap and setfacl change: the status is the same
// afterwards, but for times that nobody compares.
func sameAttributes(a, b *node) (bool, error) {
	have, err := a.xattrs()
	if err != nil {
		return false, err
	}
	had, err := b.xattrs()
	return maps.Equal(have, had), err
}

// missing returns what was in before and is not in now.
func missing(now, before int) ([]string, error) {
	if before < 0 {
		return nil, nil
	}
	had, err := namesIn(before)
	if err != nil {
		return nil, err
	}
	has, err := namesIn(now)
	if err != nil {
		return nil, err
	}
	slices.Sort(had)
	slices.Sort(has)
	return slices.DeleteFunc(had, func(base string) bool {
		_, found := slices.BinarySearch(has, base)
		return found
	}), nil
}

// differs compares as dockerd does: size and time of a directory say nothing
// about itself.
func differs(a, b *unix.Stat_t) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return true
	}
	return a.Mode&unix.S_IFMT != unix.S_IFDIR && (a.Size != b.Size || a.Mtim != b.Mtim)
}
