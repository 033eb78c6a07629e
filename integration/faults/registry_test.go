package faults

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	memory "github.com/google/go-containerregistry/pkg/registry"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
)

// badRegistry is a registry in memory that fails as it is told, and counts.
type badRegistry struct {
	host string

	mu     sync.Mutex
	faults map[string]http.HandlerFunc // by blob, each for one request; guarded by mu
	blobs  map[string][]byte           // layers, which it sends also in parts; guarded by mu
	served map[string]int64            // bytes of each blob; guarded by mu
	asked  map[string]int              // requests for each blob; guarded by mu
}

func newBadRegistry(t *testing.T) *badRegistry {
	t.Helper()
	b := &badRegistry{faults: map[string]http.HandlerFunc{}, blobs: map[string][]byte{}, served: map[string]int64{}, asked: map[string]int{}}
	next := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blob := filepath.Base(r.URL.Path)
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			next.ServeHTTP(w, r)
			return
		}
		b.mu.Lock()
		fault, content := b.faults[blob], b.blobs[blob]
		delete(b.faults, blob)
		b.asked[blob]++
		b.mu.Unlock()
		counted := &counting{ResponseWriter: w, written: func(n int) {
			b.mu.Lock()
			b.served[blob] += int64(n)
			b.mu.Unlock()
		}}
		switch {
		case fault != nil:
			fault(counted, r)
		case content != nil:
			http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(content))
		default:
			next.ServeHTTP(counted, r)
		}
	}))
	t.Cleanup(server.Close)
	b.host = strings.TrimPrefix(server.URL, "http://")
	return b
}

// counting reports what is written to a client, as it is written: an answer to
// a client that was killed ends some time later.
type counting struct {
	http.ResponseWriter
	written func(n int)
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.written(n)
	return n, err
}

func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// put makes an image of layers and keeps it.
func (b *badRegistry) put(t *testing.T, name string, layers ...greg.Layer) {
	t.Helper()
	images.Put(t, b.host+"/"+name, images.Image(t, name, layers...))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, layer := range layers {
		b.blobs[digestOf(t, layer)] = contentOf(t, layer)
	}
	clear(b.asked) // pushing asks, too
}

func contentOf(t *testing.T, layer greg.Layer) []byte {
	t.Helper()
	packed, err := layer.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// fail makes the next request for a layer go wrong.
func (b *badRegistry) fail(t *testing.T, layer greg.Layer, fault func(w http.ResponseWriter, r *http.Request, content []byte)) {
	t.Helper()
	content := contentOf(t, layer)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[digestOf(t, layer)] = func(w http.ResponseWriter, r *http.Request) { fault(w, r, content) }
}

// bytesOf is how much of a layer was sent, and in how many answers.
func (b *badRegistry) bytesOf(t *testing.T, layer greg.Layer) (sent int64, requests int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.served[digestOf(t, layer)], b.asked[digestOf(t, layer)]
}

func digestOf(t *testing.T, layer greg.Layer) string {
	t.Helper()
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// cut sends the first part of an answer and then breaks the connection.
func cut(part float64) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, content []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:int(part*float64(len(content)))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func status(code int) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(code) }
}

// truncated says that the answer is whole, and it is not.
func truncated(w http.ResponseWriter, _ *http.Request, content []byte) {
	_, _ = w.Write(content[:len(content)/3])
}

func wrong(w http.ResponseWriter, _ *http.Request, content []byte) {
	_, _ = w.Write(bytes.Repeat([]byte("x"), len(content)))
}

// badWork is an instance and a registry that fails.
func badWork(t *testing.T, options harness.Options) (*badRegistry, *imageWork) {
	t.Helper()
	options.NoImage = true
	b := newBadRegistry(t)
	w := &imageWork{t: t, registry: &harness.Registry{Host: b.host}, stack: harness.New(t, options)}
	w.client = w.stack.Client(t)
	return b, w
}

// TestPullOutlastsFaults: an image whose every layer fails in another way is
// pulled all the same.
func TestPullOutlastsFaults(t *testing.T) {
	b, w := badWork(t, harness.Options{})
	var layers []greg.Layer
	for i := range 4 {
		layers = append(layers, images.Layer(t, uint64(i), 300<<10))
	}
	b.put(t, "web:1", layers...)
	for i, fault := range []func(http.ResponseWriter, *http.Request, []byte){cut(0.5), truncated, status(500), status(429)} {
		b.fail(t, layers[i], fault)
	}
	w.must(w.pull("web:1"))
	for i, layer := range layers {
		if _, requests := b.bytesOf(t, layer); requests < 2 {
			t.Errorf("layer %d did not fail", i)
		}
	}
	w.whole()
	w.clear()
}

// TestWrongContentIsRefused, and does not spoil the next pull.
func TestWrongContentIsRefused(t *testing.T) {
	b, w := badWork(t, harness.Options{})
	layers := []greg.Layer{images.Layer(t, 1, 200<<10), images.Layer(t, 2, 200<<10)}
	b.put(t, "web:1", layers...)
	b.fail(t, layers[1], wrong)
	if err := w.pull("web:1"); err == nil {
		t.Error("it was taken")
	}
	if n := w.count("images") + w.count("layers"); n != 0 {
		t.Errorf("%d rows afterwards", n)
	}
	w.must(w.pull("web:1"))
	w.whole()
	w.clear()
}

// TestPullGoesOnAfterKill: engined is killed when 99 % of an image are here,
// the other layers unpacked already; the next pull fetches the rest.
func TestPullGoesOnAfterKill(t *testing.T) {
	b, w := badWork(t, harness.Options{})
	layers := []greg.Layer{images.Layer(t, 1, 2<<20), images.Layer(t, 2, 8<<20)}
	b.put(t, "web:1", layers...)
	size, err := layers[1].Size()
	w.must(err)
	most := make(chan struct{})
	b.fail(t, layers[1], func(rw http.ResponseWriter, r *http.Request, content []byte) {
		rw.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = rw.Write(content[:size-size/200])
		_ = http.NewResponseController(rw).Flush()
		close(most)
		<-r.Context().Done()
	})
	pulled := make(chan error, 1)
	go func() { pulled <- w.pull("web:1") }()
	<-most
	w.spooled(digestOf(t, layers[1]), size-size/200)
	w.registered(1)
	w.stack.Engined.Kill()
	if <-pulled == nil {
		t.Error("the pull went well without an engine")
	}
	first, _ := b.bytesOf(t, layers[0])
	second, _ := b.bytesOf(t, layers[1])
	w.stack.StartEngined()
	w.must(w.pull("web:1"))
	again, _ := b.bytesOf(t, layers[0])
	rest, _ := b.bytesOf(t, layers[1])
	if more := again - first + rest - second; more > size/100 {
		t.Errorf("%d bytes were sent again, of %d", more, size)
	}
	w.whole()
	w.clear()
}

// TestCancelledPull: when the client goes, the download ends, and the next pull
// goes on with it.
func TestCancelledPull(t *testing.T) {
	b, w := badWork(t, harness.Options{})
	layer := images.Layer(t, 1, 4<<20)
	b.put(t, "web:1", layer)
	half, gone := make(chan struct{}), make(chan struct{})
	var size int
	b.fail(t, layer, func(rw http.ResponseWriter, r *http.Request, content []byte) {
		size = len(content)
		rw.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = rw.Write(content[:size/2])
		_ = http.NewResponseController(rw).Flush()
		close(half)
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := w.client.ImagePull(ctx, w.name("web:1"), client.ImagePullOptions{})
	w.must(err)
	<-half
	w.spooled(digestOf(t, layer), int64(size/2))
	cancel()
	if err := stream.Wait(context.Background()); !errors.Is(err, context.Canceled) {
		t.Errorf("the client: %v", err)
	}
	<-gone // engined has closed the connection
	w.must(w.pull("web:1"))
	if sent, requests := b.bytesOf(t, layer); requests != 2 || sent > int64(size)+int64(size)/100 {
		t.Errorf("%d bytes were sent in %d answers, of %d", sent, requests, size)
	}
	w.whole()
	w.clear()
}

// TestLayersAreFetchedOnce for pulls of several images at the same time.
func TestLayersAreFetchedOnce(t *testing.T) {
	b, w := badWork(t, harness.Options{})
	shared := images.Layer(t, 1, 2<<20)
	var names []string
	for _, name := range []string{"a:1", "b:1", "c:1", "d:1"} {
		b.put(t, name, shared, images.Layer(t, uint64(name[0]), 50<<10))
		names = append(names, name, name)
	}
	var pulls sync.WaitGroup
	for _, name := range names {
		pulls.Go(func() {
			if err := w.pull(name); err != nil {
				t.Error(err)
			}
		})
	}
	pulls.Wait()
	if _, requests := b.bytesOf(t, shared); requests != 1 {
		t.Errorf("the shared layer was fetched %d times", requests)
	}
	w.whole()
	w.clear()
}

// TestFullDisk: a pull that does not fit fails and leaves room for the next.
func TestFullDisk(t *testing.T) {
	harness.NeedRoot(t)
	disk := filepath.Join(harness.TempDir(t), "disk")
	if err := errors.Join(unix.Mkdir(disk, 0o755), unix.Mount("small", disk, "tmpfs", 0, "size=20m")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b, w := badWork(t, harness.Options{DataRoot: filepath.Join(disk, "data")})
	large := []greg.Layer{images.Layer(t, 1, 2<<20), images.Layer(t, 2, 30<<20)}
	b.put(t, "large:1", large...)
	b.put(t, "small:1", images.Layer(t, 3, 2<<20))
	err := w.pull("large:1")
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v", err)
	}
	if n := w.count("images") + w.count("layers"); n != 0 {
		t.Errorf("%d rows afterwards", n)
	}
	w.must(w.pull("small:1"))
	w.whole()
	w.clear()
}

// spooled waits until a piece of a blob has arrived.
func (w *imageWork) spooled(digest string, size int64) {
	w.t.Helper()
	path := filepath.Join(w.stack.DataRoot(), "tmp", "blob-"+strings.Replace(digest, ":", "-", 1))
	w.await("blob "+digest, func() bool {
		var stat unix.Stat_t
		return unix.Stat(path, &stat) == nil && stat.Size >= size
	})
}

// registered waits until so many layers have rows.
func (w *imageWork) registered(layers int) {
	w.t.Helper()
	w.await("a layer", func() bool { return w.count("layers") == layers })
}
