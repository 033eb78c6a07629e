package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/engined/engined/proto/errdefs"
)

// maxZstdWindow bounds what a frame may make the decoder allocate; the zstd
// tool's own --ultra -22 uses 128 MiB.
const maxZstdWindow = 128 << 20

var magics = []struct {
	prefix []byte
	open   func(context.Context, io.Reader) (io.ReadCloser, error)
}{
	{[]byte{0x1f, 0x8b, 0x08}, openGzip},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, openZstd},
	{[]byte("BZh"), openBzip2},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0x00}, openXz},
}

// Decompress recognizes the compression by its first bytes, as Docker does;
// anything else is taken as it is.
func Decompress(ctx context.Context, stream io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(stream, 1<<16)
	start, err := buffered.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading the layer's first bytes: %w", err)
	}
	for _, magic := range magics {
		if bytes.HasPrefix(start, magic.prefix) {
			return magic.open(ctx, buffered)
		}
	}
	return io.NopCloser(buffered), nil
}

func openGzip(_ context.Context, r io.Reader) (io.ReadCloser, error) {
	opened, err := gzip.NewReader(r)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("reading gzip: %w", err)
	}
	return opened, nil
}

func openZstd(_ context.Context, r io.Reader) (io.ReadCloser, error) {
	opened, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("reading zstd: %w", err)
	}
	return opened.IOReadCloser(), nil
}

func openBzip2(_ context.Context, r io.Reader) (io.ReadCloser, error) {
	return io.NopCloser(bzip2.NewReader(r)), nil
}

// openXz runs the xz tool, as dockerd does: the format is rare and the
// standard library does not have it.
func openXz(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	path, err := exec.LookPath("xz")
	if err != nil {
		return nil, errdefs.NotImplemented.Errorf("the archive is compressed with xz, and there is no xz program here (Debian: xz-utils): %w", err)
	}
	command := exec.CommandContext(ctx, path, "-d", "-c", "-q")
	command.Stdin = r
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("starting xz: %w", err)
	}
	return &tool{ReadCloser: out, command: command, complaint: &complaint}, nil
}

// tool is the output of a program; its exit status is part of the stream's end.
type tool struct {
	io.ReadCloser
	command   *exec.Cmd
	complaint *bytes.Buffer
	waited    bool
}

func (t *tool) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if !errors.Is(err, io.EOF) || t.waited {
		return n, err
	}
	t.waited = true
	if failed := t.command.Wait(); failed != nil {
		return n, errdefs.InvalidArgument.Errorf("xz: %w: %s", failed, bytes.TrimSpace(t.complaint.Bytes()))
	}
	return n, err
}

// Close ends the program if it still runs.
func (t *tool) Close() error {
	if t.waited {
		return nil
	}
	t.waited = true
	_ = t.ReadCloser.Close()
	_ = t.command.Process.Kill()
	_ = t.command.Wait() // it was killed: its status says nothing
	return nil
}
