package layer

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// implied are directories that a tar has things in and does not name, by their
// paths: its root at first.
type implied map[string]bool

// settle gives implied directories in diff owner, mode and times of those that
// they will hide: overlayfs shows the uppermost one's. Docker does not, and
// turns /tmp into 0755 when a layer names only a file in it. lowers are the
// directories of the layers below, top first.
func (i implied) settle(diff string, lowers []string) error {
	root, err := openRoot(diff)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for name := range i {
		stat, found, err := lookBelow(lowers, name)
		if err == nil && found {
			err = likeBelow(root, name, &stat)
		}
		if err != nil {
			return fmt.Errorf("making directory %q like the one below: %w", name, err)
		}
	}
	return nil
}

// lookBelow finds the directory that the layers below show by that name.
func lookBelow(lowers []string, name string) (stat unix.Stat_t, found bool, err error) {
	for _, lower := range lowers {
		stat, found, err = statBelow(filepath.Join(lower, "diff"), name)
		if err != nil || found {
			// A file or a whiteout is nothing to be like.
			return stat, found && stat.Mode&unix.S_IFMT == unix.S_IFDIR, err
		}
	}
	return stat, false, nil
}

// likeBelow sets the attributes, unless a later entry has put something else in
// the directory's place.
func likeBelow(root int, name string, like *unix.Stat_t) error {
	parent, err := inRoot(root, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	base := path.Base(name)
	var own unix.Stat_t
	err = unix.Fstatat(parent, base, &own, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || err == nil && own.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(parent, base, int(like.Uid), int(like.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(parent, base, like.Mode&0o7777, 0); err != nil {
		return err
	}
	return unix.UtimesNanoAt(parent, base, []unix.Timespec{like.Atim, like.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func statBelow(lower, name string) (stat unix.Stat_t, found bool, err error) {
	root, err := openRoot(lower)
	if err != nil {
		return stat, false, err
	}
	defer unix.Close(root)
	fd, err := inRoot(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return stat, false, nil
	}
	if err != nil {
		return stat, false, err
	}
	defer unix.Close(fd)
	return stat, true, unix.Fstat(fd, &stat)
}
