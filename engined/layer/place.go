package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/vbatts/tar-split/archive/tar"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

const xattrPrefix = "SCHILY.xattr." // PAX records of GNU tar, bsdtar and Go

// place makes the object base in the directory dir; name is its whole path.
// What was there is replaced, except that a directory stays one.
func (u *unpacker) place(dir int, base, name string, header *tar.Header, data io.Reader) (int64, error) {
	switch header.Typeflag {
	case tar.TypeDir:
		return 0, u.directory(dir, base, name, header)
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(dir, base, header, data)
	case tar.TypeLink:
		return 0, u.hardLink(dir, base, name, header.Linkname)
	case tar.TypeSymlink:
		return int64(len(header.Linkname)), u.make(dir, base, header, func() error {
			return unix.Symlinkat(header.Linkname, dir, base)
		})
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return 0, u.node(dir, base, header)
	}
	return 0, errdefs.InvalidArgument.Errorf("unknown type of entry %q", header.Typeflag)
}

// make runs create, after removing what is in its way, and sets attributes and
// times of what it made.
func (u *unpacker) make(dir int, base string, header *tar.Header, create func() error) error {
	if err := u.clearing(dir, base, create); err != nil {
		return err
	}
	if err := setAttributes(dir, base, header); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, base, timesOf(header), unix.AT_SYMLINK_NOFOLLOW)
}

// clearing runs create, and again after removing base if that was in the way.
func (u *unpacker) clearing(dir int, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := u.removeAll(dir, base); err != nil {
		return fmt.Errorf("replacing it: %w", err)
	}
	return create()
}

func (u *unpacker) directory(dir int, base, name string, header *tar.Header) error {
	err := unix.Mkdirat(dir, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		err = u.directoryInPlace(dir, base)
	}
	if err != nil {
		return err
	}
	u.times = append(u.times, directoryTimes{name, timesOf(header)})
	delete(u.implied, name)
	return setAttributes(dir, base, header)
}

// directoryInPlace keeps a directory that is there and replaces anything else.
// A whiteout in the way means that the directory hides one below.
func (u *unpacker) directoryInPlace(dir int, base string) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, base, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if err := u.removeAll(dir, base); err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, 0o700); err != nil {
		return err
	}
	if u.style == whiteoutNodes && stat.Mode&unix.S_IFMT == unix.S_IFCHR && stat.Rdev == 0 {
		return unix.Setxattr(atPath(dir, base), opaqueXattr, []byte("y"), 0)
	}
	return nil
}

// file writes a regular file. Owner before mode and capabilities, because
// changing the owner clears them (chown(2)).
func (u *unpacker) file(dir int, base string, header *tar.Header, data io.Reader) (int64, error) {
	fd := -1
	err := u.clearing(dir, base, func() (err error) {
		fd, err = unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	size, err := u.copy(fd, data)
	if err != nil {
		return 0, err
	}
	if err := unix.Fchown(fd, header.Uid, header.Gid); err != nil {
		return 0, err
	}
	if err := setXattrs(header, func(name, value string) error {
		return unix.Fsetxattr(fd, name, []byte(value), 0)
	}); err != nil {
		return 0, err
	}
	if err := unix.Fchmod(fd, uint32(header.Mode)&0o7777); err != nil {
		return 0, err
	}
	return size, unix.UtimesNanoAt(dir, base, timesOf(header), unix.AT_SYMLINK_NOFOLLOW)
}

// zeros is what a hole reads as.
var zeros [256 << 10]byte

// copy writes data to fd and leaves its crc64 in u.sum, its size in u.copied.
// Zeros become holes: a sparse entry of a kilobyte can stand for terabytes.
func (u *unpacker) copy(fd int, data io.Reader) (size int64, err error) {
	var sum uint64
	hole := false // the file's last piece is one
	for {
		if u.ctx.Err() != nil {
			return size, context.Cause(u.ctx)
		}
		n, err := readBlock(data, u.buffer)
		if n > 0 {
			piece := u.buffer[:n]
			sum = crc64.Update(sum, crcTable, piece)
			size += int64(n)
			if hole = bytes.Equal(piece, zeros[:n]); hole {
				if _, err := unix.Seek(fd, int64(n), io.SeekCurrent); err != nil {
					return size, err
				}
			} else if err := writeAll(fd, piece); err != nil {
				return size, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, errdefs.InvalidArgument.Errorf("reading tar: %w", err)
		}
	}
	u.copied = size
	binary.BigEndian.PutUint64(u.sum[:], sum)
	if hole {
		return size, unix.Ftruncate(fd, size)
	}
	return size, nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// hardLink links to another file of this layer. A link is never followed: a
// link to a symbolic link is one more name of that.
func (u *unpacker) hardLink(dir int, base, name, linkname string) error {
	target, err := cleanName(linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", linkname, err)
	}
	if target == name {
		return errdefs.InvalidArgument.Errorf("a hard link to itself")
	}
	from, err := u.openDir(path.Dir(target))
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	defer unix.Close(from)
	err = u.clearing(dir, base, func() error { return unix.Linkat(from, path.Base(target), dir, base, 0) })
	if errors.Is(err, unix.ENOENT) {
		return errdefs.InvalidArgument.Errorf("hard link to %q, which is not in the layer", target)
	}
	return err
}

func (u *unpacker) node(dir int, base string, header *tar.Header) error {
	kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[header.Typeflag]
	device := 0
	if header.Typeflag != tar.TypeFifo {
		device = int(unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor)))
	}
	return u.make(dir, base, header, func() error { return unix.Mknodat(dir, base, kind|0o600, device) })
}

// setAttributes sets owner, xattrs and mode of base, which is no regular file.
// It was just made by us and is not followed where it is a link.
func setAttributes(dir int, base string, header *tar.Header) error {
	if err := unix.Fchownat(dir, base, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting the owner: %w", err)
	}
	if err := setXattrs(header, func(name, value string) error {
		return unix.Lsetxattr(atPath(dir, base), name, []byte(value), 0)
	}); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeSymlink {
		return nil // has no mode of its own
	}
	if err := unix.Fchmodat(dir, base, uint32(header.Mode)&0o7777, 0); err != nil {
		return fmt.Errorf("setting the mode: %w", err)
	}
	return nil
}

// setXattrs sets the entry's extended attributes, but never overlayfs' own: a
// layer that could write these would choose what other directories show.
func setXattrs(header *tar.Header, set func(name, value string) error) error {
	for key, value := range header.PAXRecords {
		name, is := strings.CutPrefix(key, xattrPrefix)
		if !is || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		err := set(name, value)
		// File systems without xattrs, and user.* on links and devices
		// (EPERM): the files are worth having without.
		if errors.Is(err, unix.ENOTSUP) || (errors.Is(err, unix.EPERM) && strings.HasPrefix(name, "user.")) {
			continue
		}
		if err != nil {
			return fmt.Errorf("setting xattr %s: %w", name, err)
		}
	}
	return nil
}

// timesOf returns access and modification time; an access time is rarely in
// the tar, and then the other is as good.
func timesOf(header *tar.Header) []unix.Timespec {
	access := header.AccessTime
	if access.IsZero() {
		access = header.ModTime
	}
	return []unix.Timespec{timespec(access), timespec(header.ModTime)}
}

// timespec brings times that no file system holds to the nearest that the
// system call takes.
func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// atPath names dir/base for system calls that take only paths. base is one
// component; dir's magic link leads to the descriptor, wherever that is.
func atPath(dir int, base string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, base) }

func namesIn(dir int) ([]string, error) {
	opened, err := os.Open(atPath(dir, "."))
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return opened.Readdirnames(-1)
}
