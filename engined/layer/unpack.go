package layer

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/archive/tar" // reads as the standard one, and keeps the raw bytes
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

const (
	opaqueXattr = "trusted.overlay.opaque"

	// AUFS' names for deletions, which the image specification took over.
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // AUFS' own; only the next one means something
	whiteoutOpaque = ".wh..wh..opq"
)

// Names stay in memory until the tar's end, and pack a thousand times smaller
// than they are. A layer of three million files is within these.
const (
	maxNames = 512 << 20 // bytes
	perName  = 100       // that an entry takes besides its name
)

// content is what unpacking learned about a tar.
type content struct {
	diff    digest.Digest
	size    int64
	implied implied
}

// unpack writes the tar in stream to dir/diff, and beside it what is needed to
// get the same bytes back.
func unpack(ctx context.Context, dir string, style whiteoutStyle, stream io.Reader) (content, error) {
	source, err := openTar(ctx, stream)
	if err != nil {
		return content{}, err
	}
	defer source.Close()
	u, err := newUnpacker(ctx, filepath.Join(dir, "diff"), style)
	if err != nil {
		return content{}, err
	}
	defer u.close()
	split, err := createSplit(filepath.Join(dir, splitName))
	if err != nil {
		return content{}, err
	}
	var size int64
	err = confined(dir, func() (err error) {
		size, err = u.all(source, split)
		return err
	})
	if closed := split.close(); err == nil {
		err = closed
	}
	if err != nil {
		return content{}, err
	}
	return content{diff: source.digest(), size: size, implied: u.implied}, nil
}

// unpacker puts entries of one tar below one directory. It is used by one
// goroutine. Nobody else may write below the directory meanwhile.
type unpacker struct {
	ctx    context.Context // of the call that the unpacker is
	root   int             // descriptor of the directory
	style  whiteoutStyle
	made   map[string]bool  // paths this tar has made; only for whiteoutDeletes
	times  []directoryTimes // set last, because filling directories changes them
	parent int              // cached descriptor of the directory parentOf, or -1
	inDir  string
	buffer []byte
	copied int64   // bytes of the present entry that went into a file
	sum    [8]byte // their crc64
	named  int     // of maxNames

	implied implied
}

type directoryTimes struct {
	path  string
	times []unix.Timespec
}

func newUnpacker(ctx context.Context, dir string, style whiteoutStyle) (*unpacker, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	return &unpacker{ctx: ctx, root: root, style: style, parent: -1,
		made: map[string]bool{}, buffer: make([]byte, len(zeros)), implied: implied{".": true}}, nil
}

func (u *unpacker) close() {
	u.forgetParent()
	_ = unix.Close(u.root)
}

// all unpacks every entry, records the tar's raw parts in split, and reads the
// stream to its end: the digest is over everything.
func (u *unpacker) all(stream io.Reader, split *splitWriter) (size int64, err error) {
	reader := tar.NewReader(stream)
	reader.RawAccounting = true
	for {
		if u.ctx.Err() != nil {
			return 0, context.Cause(u.ctx)
		}
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, errdefs.InvalidArgument.Errorf("reading tar: %w", err)
		}
		if u.named += len(header.Name) + perName; u.named > maxNames {
			return 0, errdefs.InvalidArgument.Errorf("the names in the tar are too many or too long: at most %d MiB are read", maxNames>>20)
		}
		// The reader's name is part of all the entry's PAX records, up to a
		// megabyte, which it would keep in memory.
		header.Name = strings.Clone(header.Name)
		split.segment(reader.RawBytes())
		u.copied = 0
		added, err := u.entry(header, reader)
		if err != nil {
			return 0, fmt.Errorf("unpacking %.300q: %w", header.Name, classify(err))
		}
		kept, err := u.skip(reader)
		if err != nil {
			return 0, err
		}
		split.file(header, kept, u.copied, u.sum[:])
		split.segment(reader.RawBytes())
		size += added
	}
	split.segment(reader.RawBytes())
	for {
		n, err := stream.Read(u.buffer)
		split.segment(u.buffer[:n])
		if errors.Is(err, io.EOF) {
			return size, u.setTimes()
		}
		if err != nil {
			return 0, fmt.Errorf("reading the end of the tar: %w", err)
		}
	}
}

// classify tells what is the tar's fault from what is the machine's.
func classify(err error) error {
	for _, fault := range []syscall.Errno{unix.EEXIST, unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EINVAL, unix.ERANGE} {
		if errors.Is(err, fault) {
			return errdefs.InvalidArgument.Errorf("%w", err)
		}
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errdefs.ResourceExhausted.Errorf("%w", err)
	}
	return err
}

// skip reads the rest of an entry: what is no file carries nothing, except
// what AUFS left, which is not kept and so cannot be given back either.
func (u *unpacker) skip(r io.Reader) (kept bool, err error) {
	n, err := io.CopyBuffer(onlyWriter{io.Discard}, r, u.buffer)
	if err != nil {
		return false, errdefs.InvalidArgument.Errorf("reading tar: %w", err)
	}
	return n == 0, nil
}

// onlyWriter hides io.Discard's ReadFrom, which would not use the buffer.
type onlyWriter struct{ io.Writer }

// entry puts one entry and returns how many bytes it adds to the layer's size.
func (u *unpacker) entry(header *tar.Header, data io.Reader) (int64, error) {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return 0, nil // git-archive's comment; PAX defaults for others are rare and Docker ignores them too
	}
	name, err := cleanName(header.Name)
	if err != nil {
		return 0, err
	}
	if name == "." {
		return 0, u.rootEntry(header)
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return 0, u.whiteout(path.Dir(name), base)
	}
	dir, err := u.open(path.Dir(name))
	if err != nil {
		return 0, err
	}
	if u.style == whiteoutDeletes {
		u.made[name] = true
	}
	return u.place(dir, base, name, header, data)
}

// cleanName returns the entry's path relative to the root. Leading slashes
// mean the root; names that lead above it are refused.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errdefs.InvalidArgument.Errorf("the name has a zero byte")
	}
	if len(name) >= unix.PathMax { // also one of which nothing is made
		return "", errdefs.InvalidArgument.Errorf("the name has %d bytes; at most %d are allowed", len(name), unix.PathMax-1)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errdefs.InvalidArgument.Errorf("the name leads out of the layer")
	}
	return clean, nil
}

// rootEntry gives the layer's own root directory its attributes.
func (u *unpacker) rootEntry(header *tar.Header) error {
	if header.Typeflag != tar.TypeDir {
		return errdefs.InvalidArgument.Errorf("the root of a layer must be a directory")
	}
	root, err := u.open(".")
	if err != nil {
		return err
	}
	if err := setAttributes(root, ".", header); err != nil {
		return err
	}
	u.times = append(u.times, directoryTimes{".", timesOf(header)})
	delete(u.implied, ".")
	return nil
}

// whiteout records or carries out a deletion of something in a layer below.
func (u *unpacker) whiteout(dir, base string) error {
	victim := strings.TrimPrefix(base, whiteoutPrefix)
	switch {
	case base == whiteoutOpaque:
		return u.opaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil // AUFS' hard link store and the like
	case victim == "" || victim == "." || victim == "..":
		return errdefs.InvalidArgument.Errorf("a whiteout of %q", victim)
	}
	parent, err := u.open(dir)
	if err != nil {
		return err
	}
	if u.style == whiteoutDeletes {
		if u.made[path.Join(dir, victim)] {
			return nil // whiteouts are for layers below, whatever their order
		}
		return u.removeAll(parent, victim)
	}
	err = unix.Mknodat(parent, victim, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		// This layer has something of that name; only a directory would
		// show what is below it.
		return u.hideBelow(parent, victim)
	}
	return err
}

// hideBelow makes a directory of this layer opaque; anything else hides what
// is below by itself.
func (u *unpacker) hideBelow(parent int, base string) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(parent, base, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return unix.Lsetxattr(atPath(parent, base), opaqueXattr, []byte("y"), 0)
}

func (u *unpacker) opaque(dir string) error {
	fd, err := u.open(dir)
	if err != nil {
		return err
	}
	if u.style == whiteoutNodes {
		return unix.Setxattr(atPath(fd, "."), opaqueXattr, []byte("y"), 0)
	}
	names, err := namesIn(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := u.removeBelow(fd, dir, name); err != nil {
			return err
		}
	}
	return nil
}

// removeBelow deletes what came from layers below and keeps what this one made,
// in dir/name and further down.
func (u *unpacker) removeBelow(dirFd int, dir, name string) error {
	full := path.Join(dir, name)
	if !u.made[full] {
		return u.removeAll(dirFd, name)
	}
	fd, err := unix.Openat(dirFd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := namesIn(fd)
	if err != nil {
		return err
	}
	for _, below := range names {
		if err := u.removeBelow(fd, full, below); err != nil {
			return err
		}
	}
	return nil
}

// setTimes gives directories their times, after everything is in them.
func (u *unpacker) setTimes() error {
	for _, at := range u.times { // of several for one directory the last counts
		parent, err := u.find(path.Dir(at.path))
		if err == nil {
			err = unix.UtimesNanoAt(parent, path.Base(at.path), at.times, unix.AT_SYMLINK_NOFOLLOW)
		}
		// A later entry may have replaced it: then there is nothing to
		// set, or something else whose times are not worth a failure.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("setting the times of %q: %w", at.path, err)
		}
	}
	return nil
}

// crcTable is the one tar-split checks files with.
var crcTable = crc64.MakeTable(crc64.ISO)
