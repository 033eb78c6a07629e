package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// stallTimeout is how long a registry may send nothing in the middle of a blob.
const stallTimeout = time.Minute

// Phase says how far a download is.
type Phase int

// The phases of a download, in their order; Retrying goes back to Downloading.
const (
	Waiting     Phase = iota // for a turn
	Downloading              // bytes arrive
	Retrying                 // until the next attempt
	Verifying
	Complete
	Failed
)

// Progress is a moment of a download.
type Progress struct {
	Phase   Phase
	Current int64
	Total   int64
}

// download is a blob on its way, for all who want it. One goroutine writes the
// file; it ends when the blob is whole, cannot be had, or nobody wants it.
type download struct {
	of      ocispec.Descriptor
	path    string
	fetch   func(ctx context.Context, offset int64) (body io.ReadCloser, begins int64, err error)
	cancel  context.CancelFunc
	ended   chan struct{}
	holders int // guarded by Client.mu

	mu       sync.Mutex
	progress Progress      // guarded by mu
	readable int64         // bytes that readers may see; guarded by mu
	err      error         // why it failed; guarded by mu
	changed  chan struct{} // closed at the next change; guarded by mu
}

// Blob is one caller's interest in a download.
type Blob struct {
	*download
	client *Client
	closed bool
}

// Fetch begins to download a blob, or joins a download that is under way. The
// caller closes the Blob.
func (r *Repository) Fetch(ctx context.Context, of ocispec.Descriptor) (*Blob, error) {
	if err := checkDescriptor("blob", of); err != nil {
		return nil, err
	}
	c := r.client
	file := fileOf(of.Digest)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.downloads[file] != nil && c.downloads[file].holders == 0 {
		if err := c.awaitEnd(ctx, file, c.downloads[file]); err != nil {
			return nil, err
		}
	}
	d := c.downloads[file]
	if d == nil {
		d = &download{of: of, path: filepath.Join(c.options.Dir, file), ended: make(chan struct{}), changed: make(chan struct{}),
			progress: Progress{Total: of.Size}, fetch: func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) { return r.open(ctx, of, offset) }}
		var alive context.Context
		alive, d.cancel = context.WithCancel(c.alive)
		c.downloads[file] = d
		place := c.downloading.join() // here, for the order
		c.work.Go(func() {
			defer place.leave()
			c.run(alive, file, d, place)
		})
	}
	if d.of.Size != of.Size {
		return nil, errdefs.InvalidArgument.Errorf("blob %s: one manifest says that it has %d bytes, another %d", of.Digest, d.of.Size, of.Size)
	}
	d.holders++
	return &Blob{download: d, client: c}, nil
}

// awaitEnd waits for a download that nobody wanted any more, so that its file
// has one writer. It is called with c.mu held and lets go of it meanwhile.
func (c *Client) awaitEnd(ctx context.Context, file string, d *download) error {
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		select {
		case <-d.ended:
			c.drop(file, d)
		default: // its own goroutine will
		}
	}()
	select {
	case <-d.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drop forgets a download. It is called with c.mu held.
func (c *Client) drop(file string, d *download) {
	if c.downloads[file] == d {
		delete(c.downloads, file)
	}
}

// run is the download's goroutine. A failed one makes room for the next.
func (c *Client) run(ctx context.Context, file string, d *download, place *turn) {
	defer close(d.ended)
	defer d.cancel()
	err := place.wait(ctx)
	if err == nil {
		err = c.download(ctx, d)
	}
	if err != nil {
		c.mu.Lock()
		c.drop(file, d)
		c.mu.Unlock()
	}
	d.finish(err)
}

// Close gives the interest up. What nobody wants any more is cancelled; a blob
// that somebody is done with is removed, anything else stays to be gone on with.
func (b *Blob) Close(done bool) {
	if b.closed {
		return
	}
	b.closed = true
	c, file := b.client, filepath.Base(b.path)
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.holders--; b.holders > 0 {
		return
	}
	b.cancel()
	c.mu.Unlock()
	<-b.ended // soon: it was cancelled
	c.mu.Lock()
	c.drop(file, b.download)
	if done && c.downloads[file] == nil {
		_ = os.Remove(b.path) // what stays, the sweep removes
	}
}

func (c *Client) download(ctx context.Context, d *download) error {
	w, err := openPartial(d)
	if err != nil {
		return fmt.Errorf("opening the file for blob %s: %w", d.of.Digest, err)
	}
	defer w.close()
	resumed := w.at > 0
	if err := c.fill(ctx, d, w); err != nil {
		return err
	}
	d.phase(Verifying)
	got := digest.NewDigest(d.of.Digest.Algorithm(), w.sum)
	if got != d.of.Digest && resumed {
		// What was left may have been hit by a power cut.
		c.log.WarnContext(ctx, "a blob's first part was damaged; fetching all of it", "blob", d.of.Digest)
		if err := errors.Join(w.restart(), c.fill(ctx, d, w)); err != nil {
			return err
		}
		d.phase(Verifying)
		got = digest.NewDigest(d.of.Digest.Algorithm(), w.sum)
	}
	if got != d.of.Digest {
		return errors.Join(wrongDigest("filesystem layer", got, d.of.Digest), os.Remove(d.path))
	}
	failpoint.At("blob-verified")
	return nil
}

// fill gets what is missing. Attempts that bring something do not count.
func (c *Client) fill(ctx context.Context, d *download, w *partial) error {
	for failures := 0; ; {
		before := w.at
		err := c.attempt(ctx, d, w)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if w.at-before >= 1<<20 {
			failures = 0
		}
		if failures++; failures >= c.options.Attempts || !mayPass(err) {
			return fmt.Errorf("downloading blob %s: %w", d.of.Digest, err)
		}
		c.log.DebugContext(ctx, "going on with a blob", "blob", d.of.Digest, "at", w.at, "failures", failures, "err", err)
		d.phase(Retrying)
		if err := c.wait(ctx, failures, err); err != nil {
			return err
		}
	}
}

func (c *Client) attempt(ctx context.Context, d *download, w *partial) error {
	d.phase(Downloading)
	failpoint.At("blob-opened")
	if w.at == d.of.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stalled.Stop()
	body, begins, err := d.fetch(ctx, w.at)
	if err != nil {
		return orCause(ctx, err)
	}
	defer body.Close()
	known := w.at - begins // of what comes
	for buffer := make([]byte, 128<<10); ; {
		n, err := body.Read(buffer[:skipped(known, len(buffer))])
		stalled.Reset(stallTimeout)
		if known > 0 && err == nil {
			known -= int64(n)
			continue
		}
		if known > 0 {
			n = 0
		}
		if w.at+int64(n) > d.of.Size {
			return errdefs.InvalidArgument.Errorf("the registry sent more than the %d bytes that the manifest says", d.of.Size)
		}
		if err := w.write(buffer[:n]); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF) && w.at == d.of.Size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return orCause(ctx, err)
		}
	}
}

// skipped is how much to read at once: what is known already ends at a read's
// end.
func skipped(known int64, size int) int64 {
	if known > 0 {
		return min(known, int64(size))
	}
	return int64(size)
}

// orCause tells a stall from a cancelled request.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// open asks for a blob from offset on, and says where the answer begins: a
// registry that knows no ranges sends all of it, or refuses and is asked for all
// of it.
func (r *Repository) open(ctx context.Context, of ocispec.Descriptor, offset int64) (body io.ReadCloser, begins int64, err error) {
	r.mu.Lock()
	from := r.remotes[0]
	r.mu.Unlock()
	response, err := r.get(ctx, from, of, offset)
	if offset > 0 && isStatus(err, http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest, http.StatusNotFound) {
		response, err = r.get(ctx, from, of, 0)
	}
	if err != nil {
		return nil, 0, r.without(ctx, from, err)
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, 0, nil
	}
	if !strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
		_ = response.Body.Close()
		return nil, 0, errdefs.InvalidArgument.Errorf("the registry sent range %q, asked for from %d on", response.Header.Get("Content-Range"), offset)
	}
	return response.Body, offset, nil
}

func (r *Repository) get(ctx context.Context, from *remote, of ocispec.Descriptor, offset int64) (*http.Response, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	return from.do(ctx, request{method: http.MethodGet, path: r.url("blobs", of.Digest.String()), header: header}, http.StatusOK, http.StatusPartialContent)
}

// without gives a mirror up that does not have the blob. The next attempt then
// goes to the next one.
func (r *Repository) without(ctx context.Context, from *remote, err error) error {
	err = classify(err, r.named)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.remotes) == 1 || r.remotes[0] != from || ctx.Err() != nil {
		return err
	}
	r.remotes = r.remotes[1:]
	return errdefs.Unavailable.Errorf("mirror %s: %w", from.host.name, errors.Join(errMirror, err))
}

// partial is the file being written, and the digest of what is in it.
type partial struct {
	d       *download
	file    *os.File
	at      int64
	sum     hash.Hash
	visible bool // all of it came from this process: readers may follow
}

// openPartial opens the blob's file and reads what is there already.
func openPartial(d *download) (*partial, error) {
	file, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	w := &partial{d: d, file: file, sum: d.of.Digest.Algorithm().Hash()}
	stat, err := file.Stat()
	if err == nil && stat.Size() > d.of.Size {
		err = file.Truncate(0)
	}
	if err == nil {
		w.at, err = io.Copy(w.sum, file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	w.visible = w.at == 0
	d.advance(w.at, w.visible)
	return w, nil
}

func (w *partial) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(p, w.at); err != nil {
		return err
	}
	w.sum.Write(p)
	w.at += int64(len(p))
	w.d.advance(w.at, w.visible)
	return nil
}

func (w *partial) restart() error {
	w.at = 0
	w.sum.Reset()
	w.d.advance(0, false)
	return w.file.Truncate(0)
}

func (w *partial) close() { _ = w.file.Close() } // what it holds is verified by its digest

// advance tells how much is there.
func (d *download) advance(at int64, visible bool) {
	d.change(func() {
		d.progress.Current = at
		if visible {
			d.readable = at
		}
	})
}

func (d *download) phase(p Phase) { d.change(func() { d.progress.Phase = p }) }

func (d *download) finish(err error) {
	d.change(func() {
		d.err = err
		if d.progress.Phase = Failed; err == nil {
			d.progress.Phase, d.readable = Complete, d.of.Size
		}
	})
}

func (d *download) change(do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do()
	close(d.changed)
	d.changed = make(chan struct{})
}

// Progress returns how far it is, and a channel that is closed when that
// changes.
func (b *Blob) Progress() (Progress, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.progress, b.changed
}

// Wait waits until the blob is whole and verified.
func (b *Blob) Wait(ctx context.Context) error {
	select {
	case <-b.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// Read returns a reader that follows the download from its beginning. Its
// io.EOF means that the digest was verified.
func (b *Blob) Read(ctx context.Context) io.ReadCloser {
	return &follower{ctx: ctx, download: b.download}
}

type follower struct {
	*download
	ctx  context.Context
	file *os.File // nil until there is something to read
	at   int64
}

func (f *follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		f.mu.Lock()
		there, phase, changed, err := f.readable, f.progress.Phase, f.changed, f.err
		f.mu.Unlock()
		switch {
		case phase == Failed:
			return 0, err
		case f.at < there:
			return f.read(p[:min(int64(len(p)), there-f.at)])
		case phase == Complete:
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			return 0, context.Cause(f.ctx)
		}
	}
}

func (f *follower) read(p []byte) (n int, err error) {
	if f.file == nil {
		if f.file, err = os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW, 0); err != nil {
			return 0, err
		}
	}
	n, err = f.file.ReadAt(p, f.at)
	f.at += int64(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return n, err
}

// Close closes the reader, not the Blob.
func (f *follower) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
