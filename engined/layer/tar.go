package layer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// WriteTar writes the uncompressed tar that the layer was made from; its
// digest is the layer's diff id. A changed file is an error at that file.
func (s *Store) WriteTar(ctx context.Context, chain digest.Digest, to io.Writer) (err error) {
	l, err := s.Get(ctx, chain)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.root, l.dir)
	split, err := os.Open(filepath.Join(dir, splitName))
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotImplemented.Errorf("the tar of layer %s cannot be put together again: it was sparse, or named a file twice", l.Chain)
	}
	if err != nil {
		return err
	}
	defer split.Close()
	entries, err := gzip.NewReader(bufio.NewReader(split))
	if err != nil {
		return errdefs.DataLoss.Errorf("reading tar-split metadata of layer %s: %w", l.Chain, err)
	}
	diff, done, err := s.driver.read(ctx, dir)
	if err != nil {
		return fmt.Errorf("reading layer %s: %w", l.Chain, err)
	}
	defer func() { err = errors.Join(err, done()) }()
	files, err := openFiles(ctx, diff)
	if err != nil {
		return err
	}
	defer files.close()
	if err := asm.WriteOutputTarStream(files, storage.NewJSONUnpacker(entries), to); err != nil {
		return fmt.Errorf("writing the tar of layer %s: %w", l.Chain, err)
	}
	return nil
}

// files gives tar-split the content of a layer's files.
type files struct {
	ctx  context.Context // ends the writing between two files
	root int
}

func openFiles(ctx context.Context, dir string) (*files, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &files{ctx, root}, nil
}

func (f *files) close() { _ = unix.Close(f.root) }

// Get opens a file by its name in the tar; links in the name end in the layer.
func (f *files) Get(name string) (io.ReadCloser, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, context.Cause(f.ctx)
	}
	clean, err := cleanName(name)
	if err != nil {
		return nil, err
	}
	fd, err := inRoot(f.root, clean, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}
