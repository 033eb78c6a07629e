package layer

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Decompressing, hashing and unpacking cost about the same, so each has a
// goroutine, and blocks of the uncompressed tar go from the first to both
// others without being copied. Memory is bounded: blockCount blocks in all.
const (
	blockSize  = 256 << 10
	blockCount = 8
)

// block is a piece of the stream. The last of its readers gives it back.
type block struct {
	data    []byte
	readers atomic.Int32
}

// tarStream is an uncompressed stream that is being hashed while it is read.
type tarStream struct {
	ctx    context.Context
	cancel context.CancelFunc
	free   chan *block // blocks to fill
	toHash chan *block
	toRead chan *block
	work   sync.WaitGroup

	err error         // why the stream ended; written before toRead is closed
	sum digest.Digest // written before work is done

	current *block // the reader's own
	rest    []byte
}

// openTar starts the pipeline. Close must be called, from the reader's
// goroutine; it waits for a Read of stream that is under way.
func openTar(ctx context.Context, stream io.Reader) (*tarStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	plain, err := Decompress(ctx, stream)
	if err != nil {
		cancel()
		return nil, err
	}
	t := &tarStream{ctx: ctx, cancel: cancel, free: make(chan *block, blockCount),
		toHash: make(chan *block, blockCount), toRead: make(chan *block, blockCount)}
	for range blockCount {
		t.free <- &block{data: make([]byte, blockSize)}
	}
	t.work.Go(func() { t.fill(plain) })
	t.work.Go(t.hash)
	return t, nil
}

// fill is the only sender on toHash and toRead; neither can block, because
// they hold as many blocks as there are.
func (t *tarStream) fill(plain io.ReadCloser) {
	defer close(t.toHash)
	defer close(t.toRead)
	defer plain.Close()
	for {
		var b *block
		select {
		case b = <-t.free:
		case <-t.ctx.Done():
			t.err = context.Cause(t.ctx)
			return
		}
		n, err := readBlock(plain, b.data[:blockSize])
		b.data = b.data[:n]
		b.readers.Store(2)
		t.toHash <- b
		t.toRead <- b
		if err != nil {
			t.err = err
			return
		}
	}
}

// readBlock fills p unless the stream ends. Unlike io.ReadFull it does not
// give a short last block the error of a truncated compressed stream.
func readBlock(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	return n, err
}

func (t *tarStream) hash() {
	sum := sha256.New()
	for b := range t.toHash {
		sum.Write(b.data)
		t.done(b)
	}
	t.sum = digest.NewDigest(digest.SHA256, sum)
}

func (t *tarStream) done(b *block) {
	if b.readers.Add(-1) == 0 {
		t.free <- b
	}
}

// Read gives the uncompressed stream.
func (t *tarStream) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.current != nil {
			t.done(t.current)
			t.current = nil
		}
		next, open := <-t.toRead
		if !open {
			return 0, t.err
		}
		t.current, t.rest = next, next.data
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// digest is that of the whole stream. Call it after Read gave io.EOF.
func (t *tarStream) digest() digest.Digest {
	t.work.Wait()
	return t.sum
}

// Close ends the pipeline and waits for its goroutines.
func (t *tarStream) Close() {
	t.cancel()
	t.work.Wait()
}
