package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// archiver writes files of a tree into a tar, in the form that dockerd gives
// its own: PAX where it must be, whole seconds, no access times.
type archiver struct {
	tar    *tar.Writer
	linked map[inodeOf]string // first name of each file with several
	buffer []byte
}

func newArchiver(to io.Writer) *archiver {
	return &archiver{tar: tar.NewWriter(to), linked: map[inodeOf]string{}, buffer: make([]byte, len(zeros))}
}

// add writes one file. Sockets are left out: no tar holds them.
func (a *archiver) add(n *node) error {
	header := &tar.Header{Name: n.path, Format: tar.FormatPAX, Mode: int64(n.stat.Mode & 0o7777),
		Uid: int(n.stat.Uid), Gid: int(n.stat.Gid), ModTime: time.Unix(n.stat.Mtim.Sec, 0)}
	if first, again := a.linked[n.inode()]; again && !n.isDir() && n.stat.Nlink > 1 {
		header.Typeflag, header.Linkname = tar.TypeLink, first
		return a.tar.WriteHeader(header)
	}
	attributes, err := n.xattrs()
	if err != nil {
		return err
	}
	for name, value := range attributes {
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords[xattrPrefix+name] = value
	}
	switch n.kind() {
	case unix.S_IFREG:
		return a.file(n, header)
	case unix.S_IFDIR:
		header.Typeflag, header.Name = tar.TypeDir, n.path+"/"
	case unix.S_IFLNK:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = n.readlink(); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		header.Typeflag = tar.TypeChar
		if n.kind() == unix.S_IFBLK {
			header.Typeflag = tar.TypeBlock
		}
		header.Devmajor, header.Devminor = int64(unix.Major(n.stat.Rdev)), int64(unix.Minor(n.stat.Rdev))
	case unix.S_IFIFO:
		header.Typeflag = tar.TypeFifo
	default:
		return nil
	}
	return a.write(n, header)
}

// file writes a regular file with the size it has when it is opened.
func (a *archiver) file(n *node, header *tar.Header) error {
	file, err := n.open()
	if err != nil {
		return err
	}
	defer file.Close()
	header.Typeflag, header.Size = tar.TypeReg, n.stat.Size
	if err := a.write(n, header); err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{a.tar}, padded(file, header.Size), a.buffer)
	return err
}

// write writes a header, and remembers the name for further ones.
func (a *archiver) write(n *node, header *tar.Header) error {
	if err := a.tar.WriteHeader(header); err != nil {
		return fmt.Errorf("archiving %q: %w", n.path, err)
	}
	if !n.isDir() && n.stat.Nlink > 1 {
		a.linked[n.inode()] = n.path
	}
	return nil
}

// whiteout says that the file of that path is deleted.
func (a *archiver) whiteout(at string) error {
	return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Format: tar.FormatPAX, Mode: 0o600, ModTime: time.Unix(0, 0),
		Name: path.Join(path.Dir(at), whiteoutPrefix+path.Base(at))})
}

// opaque says that a directory shows nothing of the layers below.
func (a *archiver) opaque(dir string) error {
	return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Format: tar.FormatPAX, Mode: 0o600, ModTime: time.Unix(0, 0),
		Name: path.Join(dir, whiteoutOpaque)})
}

// WriteTree writes everything that a container sees in its root as a tar. The
// container may run, and change it meanwhile: what goes is left out.
func (s *Store) WriteTree(ctx context.Context, id string, to io.Writer) error {
	root, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	a := newArchiver(to)
	if err := walk(ctx, root, a.add); err != nil {
		return fmt.Errorf("archiving %s: %w", id, err)
	}
	return s.finish(ctx, id, a)
}

// hold returns a descriptor of the writable layer joined with those below. The
// descriptor keeps the mount alive, which is otherwise as it was before.
func (s *Store) hold(ctx context.Context, id string) (root int, err error) {
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return -1, err
	}
	defer unlock()
	_, lowers, err := s.writable(ctx, id)
	if err != nil {
		return -1, err
	}
	dir := s.dirOf(id)
	mounted, err := hasMounts(dir)
	if err != nil {
		return -1, err
	}
	joined, err := s.driver.mount(ctx, dir, lowers)
	if err != nil {
		return -1, err
	}
	root, err = openTree(joined)
	if !mounted {
		// Detached, since it is busy: it goes with the descriptor.
		if unmounted := s.driver.unmount(dir); unmounted != nil && err == nil {
			_ = unix.Close(root)
			return -1, unmounted
		}
	}
	return root, err
}
