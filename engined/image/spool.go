package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// Bounds of an archive's entries, of which an image has few for each layer, and
// of the memory that their names take.
const (
	maxFiles = 1 << 17
	maxNames = 16 << 20
)

// Lists can name one file many times, so what bounds memory and time is the sum
// of what is read to find the images: 64 MiB, in which every file counts as a
// page at least. An image takes three files of some kilobytes.
const (
	maxRead = 64 << 20
	minRead = 4 << 10
)

// archive is an image archive on disk. The order of its files is not known
// before its end (`docker save` writes the manifest last), so it is spooled.
// Names inside are only keys of a map: they never become names on disk.
type archive struct {
	dir   string
	files map[string]spooled
	links map[string]string // old archives link to a layer they have already
	begun int               // files so far: what the next one on disk is called
	named int               // of maxNames
	taken int64             // of maxRead

	mu       sync.Mutex
	expected map[string]int // guarded by mu; by path, how many layers will still be read from it
}

// spooled is a file of the archive.
type spooled struct {
	path string
	size int64
}

// spool reads the archive. The caller removes it.
func spool(ctx context.Context, parent string, stream io.Reader) (a *archive, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	dir, err := os.MkdirTemp(parent, "load-")
	if err != nil {
		return nil, err
	}
	undo.Add("remove "+dir, func(context.Context) error { return os.RemoveAll(dir) })
	plain, err := layer.Decompress(ctx, stream)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	a = &archive{dir: dir, files: map[string]spooled{}, links: map[string]string{}}
	reader := tar.NewReader(plain)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			failpoint.At("archive-spooled")
			return a, nil
		}
		if err != nil {
			return nil, errdefs.InvalidArgument.Errorf("not a tar, or not a whole one: %w", err)
		}
		if err := a.add(header, reader); err != nil {
			return nil, err
		}
	}
}

func (a *archive) add(header *tar.Header, data io.Reader) error {
	if len(a.files)+len(a.links) >= maxFiles {
		return errdefs.InvalidArgument.Errorf("more than %d files", maxFiles)
	}
	if a.named += len(header.Name) + len(header.Linkname); a.named > maxNames {
		return errdefs.InvalidArgument.Errorf("more than %d MiB of file names", maxNames>>20)
	}
	// Cloned, because the reader's names are part of all the entry's PAX records,
	// up to a megabyte, which they would keep in memory.
	name, linkname := path.Clean(strings.TrimLeft(strings.Clone(header.Name), "/")), strings.Clone(header.Linkname)
	switch header.Typeflag {
	case tar.TypeReg:
		if err := a.forget(name); err != nil {
			return err
		}
		return a.store(name, data)
	case tar.TypeSymlink:
		return a.link(name, path.Join(path.Dir(name), linkname))
	case tar.TypeLink:
		return a.link(name, path.Clean(strings.TrimLeft(linkname, "/")))
	}
	return nil // directories and the like hold nothing
}

// forget drops what the archive had by that name: of several entries the last
// counts, as when a tar is unpacked.
func (a *archive) forget(name string) error {
	delete(a.links, name)
	file, found := a.files[name]
	if !found {
		return nil
	}
	delete(a.files, name)
	return os.Remove(file.path)
}

func (a *archive) link(name, to string) error {
	if err := a.forget(name); err != nil {
		return err
	}
	a.links[name] = to
	return nil
}

func (a *archive) store(name string, data io.Reader) (err error) {
	stored := filepath.Join(a.dir, strconv.Itoa(a.begun))
	a.begun++
	file, err := os.OpenFile(stored, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := io.CopyBuffer(struct{ io.Writer }{file}, data, make([]byte, 256<<10))
	if err != nil {
		return fmt.Errorf("spooling %s: %w", name, err)
	}
	a.files[name] = spooled{stored, size}
	return nil
}

func (a *archive) remove() { _ = os.RemoveAll(a.dir) } // what stays, the next start sweeps

// expect counts the layers that will be read from each file.
func (a *archive) expect(sources []source) {
	a.expected = map[string]int{}
	for _, from := range sources {
		for _, l := range from.layers {
			if file, found := a.find(l.file); found {
				a.expected[file.path]++
			}
		}
	}
}

// drop removes a layer's file after it was read for the last time: what is gone
// before the layers are synced is never written to the disk.
func (a *archive) drop(name string) error {
	file, found := a.find(name)
	if !found {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.expected[file.path]--; a.expected[file.path] > 0 {
		return nil
	}
	return os.Remove(file.path)
}

// find returns the file that a name means, through at most one link.
func (a *archive) find(name string) (spooled, bool) {
	name = path.Clean(name)
	if to, linked := a.links[name]; linked {
		name = to
	}
	file, found := a.files[name]
	return file, found
}

func (a *archive) has(name string) bool {
	_, found := a.find(name)
	return found
}

func (a *archive) open(name string) (*os.File, int64, error) {
	stored, found := a.find(name)
	if !found {
		return nil, 0, errdefs.InvalidArgument.Errorf("the archive has no file %q", name)
	}
	file, err := os.Open(stored.path)
	return file, stored.size, err
}

// read reads a whole small file.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	file, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if size > limit {
		return nil, errdefs.InvalidArgument.Errorf("%s has %d bytes; at most %d are allowed", name, size, limit)
	}
	if a.taken += max(size, minRead); a.taken > maxRead {
		return nil, errdefs.InvalidArgument.Errorf("the archive's manifests and configurations are too many or too large: at most %d MiB are read", maxRead>>20)
	}
	return io.ReadAll(file)
}
