package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// openRoot opens a layer's own directory.
func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// inRoot opens name below root as if root were "/": links, also absolute ones
// and "..", end inside, and /proc-like magic links are refused.
func inRoot(root int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for attempt := 0; ; attempt++ {
		fd, err := unix.Openat2(root, name, &how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EAGAIN) && attempt < 64, errors.Is(err, unix.EINTR):
			// EAGAIN: something somewhere was renamed during a "..", see openat2(2).
		case errors.Is(err, unix.ENOSYS):
			return inRootSlowly(root, name, flags)
		default:
			return -1, err
		}
	}
}

// inRootSlowly is inRoot for kernels before 5.6 and for sandboxes that have no
// openat2: each component by itself, checked.
func inRootSlowly(root int, name string, flags int) (int, error) {
	base, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", root), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer base.Close()
	handle, err := securejoin.OpenatInRoot(base, name)
	if err != nil {
		return -1, err
	}
	defer handle.Close()
	if flags&unix.O_PATH != 0 {
		return unix.FcntlInt(handle.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	opened, err := securejoin.Reopen(handle, flags)
	if err != nil {
		return -1, err
	}
	defer opened.Close()
	return unix.FcntlInt(opened.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// open returns the directory of that name, made if it is not there. The
// descriptor is the unpacker's and good until the next call of open or find:
// tars name the files of one directory together, so the last one is kept.
func (u *unpacker) open(dir string) (int, error) {
	fd, err := u.find(dir)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if fd, err = u.makeImplied(dir); err != nil {
		return -1, fmt.Errorf("making directory %q: %w", dir, err)
	}
	u.parent, u.inDir = fd, dir
	return fd, nil
}

// find is open for directories that should be there.
func (u *unpacker) find(dir string) (int, error) {
	if u.parent >= 0 && u.inDir == dir {
		return u.parent, nil
	}
	u.forgetParent()
	fd, err := u.openDir(dir)
	if err != nil {
		return -1, fmt.Errorf("opening directory %q: %w", dir, err)
	}
	u.parent, u.inDir = fd, dir
	return fd, nil
}

func (u *unpacker) forgetParent() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent)
	}
	u.parent = -1
}

// openDir opens a directory that is there; the caller closes it.
func (u *unpacker) openDir(dir string) (int, error) {
	return inRoot(u.root, dir, unix.O_PATH|unix.O_DIRECTORY)
}

// makeImplied makes the missing part of a path that the tar does not name.
func (u *unpacker) makeImplied(dir string) (int, error) {
	at := ""
	for _, part := range strings.Split(dir, "/") {
		next := path.Join(at, part)
		fd, err := u.openDir(next)
		if errors.Is(err, unix.ENOENT) {
			fd, err = u.makeOneImplied(at, part, next)
		}
		if err != nil {
			return -1, err
		}
		if next == dir {
			return fd, nil
		}
		_ = unix.Close(fd)
		at = next
	}
	return -1, errdefs.InvalidArgument.Errorf("no directory in %q", dir)
}

func (u *unpacker) makeOneImplied(at, part, name string) (int, error) {
	if at == "" {
		at = "."
	}
	parent, err := u.openDir(at)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	// EEXIST: a link to nowhere. Docker refuses to go through it, too.
	if err := unix.Mkdirat(parent, part, 0o755); err != nil {
		return -1, err
	}
	if err := unix.Fchmodat(parent, part, 0o755, 0); err != nil { // whatever the umask
		return -1, err
	}
	u.implied[name] = true
	return u.openDir(name)
}

// removeAll removes base and what is in it. The name is one component, so only
// what is in dir itself goes; os.RemoveAll descends by descriptors and follows
// no links.
func (u *unpacker) removeAll(dir int, base string) error { return os.RemoveAll(atPath(dir, base)) }
