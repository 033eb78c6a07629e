package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	memory "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// fixture is a registry in memory with one blob, and a client. Faults are a
// handler before it.
type fixture struct {
	*Client
	t       *testing.T
	server  *httptest.Server
	repo    *Repository
	content []byte
	blob    ocispec.Descriptor
	fault   atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
	dir     string
}

func newFixture(t *testing.T, options Options) *fixture {
	t.Helper()
	f := &fixture{t: t, content: make([]byte, 3<<20), dir: t.TempDir()}
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(f.content)
	f.blob = ocispec.Descriptor{MediaType: DockerLayerGzip, Digest: digest.FromBytes(f.content), Size: int64(len(f.content))}
	next := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := f.fault.Load(); fault != nil {
			(*fault)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(f.server.Close)
	options.Dir = f.dir
	if options.Backoff == nil {
		options.Backoff = func(int) time.Duration { return 0 }
	}
	var err error
	if f.Client, err = Open(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	f.repo = f.repository("some/thing")
	push := f.Push(t.Context(), f.named("some/thing"), Auth{}, nil)
	if err := push.Upload(t.Context(), f.blob, bytes.NewReader(f.content), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) named(path string) reference.Named {
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(f.server.URL, "http://") + "/" + path)
	if err != nil {
		f.t.Fatal(err)
	}
	return named
}

func (f *fixture) repository(path string) *Repository {
	return f.Pull(f.t.Context(), f.named(path), Auth{})
}

// onBlob sets what answers a GET of the blob.
func (f *fixture) onBlob(fault func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	whole := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			fault(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
	f.fault.Store(&whole)
}

// fetch gets the blob through a follower.
func (f *fixture) fetch(ctx context.Context) ([]byte, error) {
	b, err := f.repo.Fetch(ctx, f.blob)
	if err != nil {
		return nil, err
	}
	defer b.Close(false)
	r := b.Read(ctx)
	defer r.Close()
	return io.ReadAll(r)
}

// rest answers as a registry that knows ranges, with at most size bytes before
// the connection is cut.
func (f *fixture) rest(w http.ResponseWriter, r *http.Request, size int) {
	from := 0
	if given, is := strings.CutPrefix(r.Header.Get("Range"), "bytes="); is {
		from, _ = strconv.Atoi(strings.TrimSuffix(given, "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f.content)-1, len(f.content)))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(f.content)-from))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(f.content[from:min(len(f.content), from+size)])
	if from+size < len(f.content) {
		panic(http.ErrAbortHandler)
	}
}

func TestFetchSurvives(t *testing.T) {
	for name, fault := range map[string]func(f *fixture, n int64, w http.ResponseWriter, r *http.Request, next http.Handler){
		"500 once": func(_ *fixture, n int64, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n == 1 {
				http.Error(w, "no", http.StatusInternalServerError)
				return
			}
			next.ServeHTTP(w, r)
		},
		"429 once": func(_ *fixture, n int64, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n == 1 {
				w.Header().Set("Retry-After", "0")
				http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
		},
		"a connection cut again and again": func(f *fixture, _ int64, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			f.rest(w, r, 400<<10)
		},
		"a cut connection, and no ranges": func(f *fixture, n int64, w http.ResponseWriter, r *http.Request, _ http.Handler) {
			r.Header.Del("Range")
			f.rest(w, r, len(f.content)*int(n)/2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{Attempts: 10})
			var requests atomic.Int64
			f.onBlob(func(w http.ResponseWriter, r *http.Request, next http.Handler) { fault(f, requests.Add(1), w, r, next) })
			got, err := f.fetch(t.Context())
			if err != nil || !bytes.Equal(got, f.content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if requests.Load() < 2 {
				t.Error("the fault was not met")
			}
		})
	}
}

func TestFetchFails(t *testing.T) {
	for name, test := range map[string]struct {
		fault func(f *fixture, w http.ResponseWriter, r *http.Request)
		kind  errdefs.Kind
		left  bool // a piece to go on with
	}{
		"wrong content": {func(f *fixture, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, len(f.content)))
		}, errdefs.DataLoss, false},
		"too much": {func(f *fixture, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(f.content[:len(f.content):len(f.content)], 'x'))
		}, errdefs.InvalidArgument, true},
		"truncated": {func(f *fixture, w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			f.rest(w, r, 1<<20)
		}, errdefs.Unknown, true},
		"not there": {func(_ *fixture, w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"unknown"}]}`, http.StatusNotFound)
		}, errdefs.Unknown, true},
		"another range": {func(f *fixture, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				f.rest(w, r, 1<<20)
			}
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, errdefs.InvalidArgument, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{Attempts: 3})
			f.onBlob(func(w http.ResponseWriter, r *http.Request, _ http.Handler) { test.fault(f, w, r) })
			if _, err := f.fetch(t.Context()); err == nil || errdefs.KindOf(err) != test.kind {
				t.Errorf("got %v of kind %q, want kind %q", err, errdefs.KindOf(err), test.kind)
			}
			if left, _ := filepath.Glob(filepath.Join(f.dir, "*")); len(left) > 0 != test.left {
				t.Errorf("left: %v", left)
			}
			f.fault.Store(nil)
			if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
				t.Errorf("afterwards: %d bytes, %v", len(got), err)
			}
		})
	}
}

// A piece that an earlier process left is gone on with; a damaged one costs a
// second download and is never shown.
func TestFetchGoesOn(t *testing.T) {
	for name, damage := range map[string]bool{"whole": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Options{})
			piece := bytes.Clone(f.content[:len(f.content)*99/100])
			if damage {
				copy(piece[100:], make([]byte, 50))
			}
			file := filepath.Join(f.dir, "blob-sha256-"+f.blob.Digest.Encoded())
			if err := os.WriteFile(file, piece, 0o600); err != nil {
				t.Fatal(err)
			}
			var sent atomic.Int64
			f.onBlob(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				from, _ := strconv.Atoi(strings.Trim(r.Header.Get("Range"), "bytes=-"))
				sent.Add(int64(len(f.content) - from))
				f.rest(w, r, len(f.content))
			})
			got, err := f.fetch(t.Context())
			if err != nil || !bytes.Equal(got, f.content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if limit := f.blob.Size/100 + 1; !damage && sent.Load() > limit {
				t.Errorf("the registry sent %d bytes again, want %d at most", sent.Load(), limit)
			}
		})
	}
}

func TestABlobIsFetchedOnceForMany(t *testing.T) {
	f := newFixture(t, Options{})
	var requests atomic.Int64
	go_ := make(chan struct{})
	f.onBlob(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		requests.Add(1)
		<-go_
		next.ServeHTTP(w, r)
	})
	var blobs []*Blob
	for range 8 {
		b, err := f.repo.Fetch(t.Context(), f.blob)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	close(go_)
	var reading sync.WaitGroup
	for _, b := range blobs {
		reading.Go(func() {
			r := b.Read(t.Context())
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, f.content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			b.Close(true)
		})
	}
	reading.Wait()
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
	if left, _ := filepath.Glob(filepath.Join(f.dir, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A download ends with the last who wants it, and the next one has the file to
// itself.
func TestFetchEndsWithItsCallers(t *testing.T) {
	f := newFixture(t, Options{})
	gone := make(chan struct{})
	f.onBlob(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = w.Write(f.content[:1000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	b, err := f.repo.Fetch(ctx, f.blob)
	if err != nil {
		t.Fatal(err)
	}
	r := b.Read(ctx)
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on: %v", err)
	}
	b.Close(false)
	<-gone
	f.fault.Store(nil)
	if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("afterwards: %d bytes, %v", len(got), err)
	}
}

func TestDownloadsAreBounded(t *testing.T) {
	f := newFixture(t, Options{Downloads: 2})
	var now, most atomic.Int64
	f.onBlob(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		next.ServeHTTP(w, r)
	})
	var blobs []*Blob
	push := f.Push(t.Context(), f.named("some/thing"), Auth{}, nil)
	for i := range 6 {
		content := bytes.Repeat([]byte{byte(i)}, 200<<10)
		of := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := push.Upload(t.Context(), of, bytes.NewReader(content), func(int64) {}); err != nil {
			t.Fatal(err)
		}
		b, err := f.repo.Fetch(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	for _, b := range blobs {
		if err := b.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		b.Close(true)
	}
	if most.Load() > 2 {
		t.Errorf("%d at the same time", most.Load())
	}
}

func TestManifestsAreVerified(t *testing.T) {
	f := newFixture(t, Options{})
	lie := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", DockerManifest)
			_, _ = io.WriteString(w, `{"schemaVersion":2}`)
			return
		}
		next.ServeHTTP(w, r)
	}
	f.fault.Store(&lie)
	if _, err := f.repo.Manifest(t.Context(), digest.FromString("other").String()); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("another manifest than asked for: %v", err)
	}
	huge := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			_, _ = w.Write(make([]byte, maxManifest+1))
			return
		}
		next.ServeHTTP(w, r)
	}
	f.fault.Store(&huge)
	if _, err := f.repo.Manifest(t.Context(), "latest"); !errors.Is(err, errTooLarge) {
		t.Errorf("a huge manifest: %v", err)
	}
}

// loop redirects for ever; a redirect off the registry takes no credentials.
// A registry that stops in the middle of a manifest is asked again.
func TestAManifestThatDoesNotEnd(t *testing.T) {
	f := newFixture(t, Options{})
	f.answerTimeout = 200 * time.Millisecond
	raw := []byte(`{"schemaVersion":2}`)
	if err := f.Push(t.Context(), f.named("some/thing"), Auth{}, nil).Put(t.Context(), "1", Manifest{Descriptor: ocispec.Descriptor{MediaType: DockerManifest}, Raw: raw}); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	stops := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.Contains(r.URL.Path, "/manifests/") || asked.Add(1) > 2 {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = w.Write(raw[:5])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	f.fault.Store(&stops)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := f.repo.Manifest(ctx, "1"); err != nil || !bytes.Equal(got.Raw, raw) {
		t.Errorf("%q, %v", got.Raw, err)
	}
}

func TestRedirects(t *testing.T) {
	f := newFixture(t, Options{})
	f.onBlob(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	if _, err := f.fetch(t.Context()); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a loop: %v", err)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the credentials went to another host")
		}
		_, _ = w.Write(f.content)
	}))
	defer elsewhere.Close()
	f.onBlob(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	f.repo = f.Pull(t.Context(), f.named("some/thing"), Auth{Username: "u", Password: "p"})
	if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestBasicAuth(t *testing.T) {
	f := newFixture(t, Options{})
	ask := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "p" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}
	f.fault.Store(&ask)
	good := Auth{Username: "u", Password: "p", ServerAddress: f.server.URL}
	if err := f.Login(t.Context(), good); err != nil {
		t.Errorf("login: %v", err)
	}
	bad := good
	bad.Password = "secret"
	if err := f.Login(t.Context(), bad); errdefs.KindOf(err) != errdefs.Unauthenticated || strings.Contains(err.Error(), "secret") {
		t.Errorf("login with a wrong password: %v", err)
	}
	if _, err := f.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "no basic auth credentials") {
		t.Errorf("without credentials: %v", err)
	}
	f.repo = f.Pull(t.Context(), f.named("some/thing"), good)
	if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("with credentials: %d bytes, %v", len(got), err)
	}
}

func TestTokenAuth(t *testing.T) {
	f := newFixture(t, Options{})
	var scopes sync.Map
	ask := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch user, password, _ := r.BasicAuth(); {
		case r.URL.Path == "/token" && (user != "u" || password != "p"):
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		case r.URL.Path == "/token":
			scopes.Store(r.URL.Query().Get("scope"), true)
			_, _ = io.WriteString(w, `{"token":"abc","expires_in":60}`)
		case r.Header.Get("Authorization") != "Bearer abc":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, f.server.URL))
			http.Error(w, `{}`, http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	}
	f.fault.Store(&ask)
	if _, err := f.fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "unauthorized: incorrect username or password") {
		t.Errorf("without credentials: %v", err)
	}
	auth := Auth{Username: "u", Password: "p", ServerAddress: strings.TrimPrefix(f.server.URL, "http://")}
	if err := f.Login(t.Context(), auth); err != nil {
		t.Errorf("login: %v", err)
	}
	f.repo = f.Pull(t.Context(), f.named("some/thing"), auth)
	if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
		t.Errorf("with credentials: %d bytes, %v", len(got), err)
	}
	if _, asked := scopes.Load("repository:some/thing:pull"); !asked {
		t.Error("the token was not for the repository")
	}
}

func TestDecodeAuth(t *testing.T) {
	want := Auth{Username: "u", Password: "p?>~"}
	raw := []byte(`{"username":"u","password":"p?>~"}`)
	for _, header := range []string{base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
		if got, err := DecodeAuth(header); err != nil || got != want {
			t.Errorf("%q: %+v, %v", header, got, err)
		}
	}
	if got, err := DecodeAuth(""); err != nil || got != (Auth{}) {
		t.Errorf("no header: %+v, %v", got, err)
	}
	for _, header := range []string{"%%%", "bm8=", base64.URLEncoding.EncodeToString([]byte(`["secret"]`))} {
		if _, err := DecodeAuth(header); errdefs.KindOf(err) != errdefs.InvalidArgument || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", header, err)
		}
	}
}

func TestSearch(t *testing.T) {
	f := newFixture(t, Options{})
	index := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/v1/search" {
			next.ServeHTTP(w, r)
			return
		}
		if r.URL.Query().Get("q") != "thing" || r.URL.Query().Get("n") != "10" {
			t.Errorf("asked %s", r.URL)
		}
		_, _ = io.WriteString(w, `{"results":[{"name":"a","star_count":5},{"name":"b","star_count":50,"is_official":true},{"name":"c","star_count":9}]}`)
	}
	f.fault.Store(&index)
	host := strings.TrimPrefix(f.server.URL, "http://")
	official := true
	for want, req := range map[string]SearchRequest{"abc": {}, "bc": {Stars: 6}, "b": {Official: &official}} {
		req.Term, req.Limit = host+"/thing", 10
		found, err := f.Search(t.Context(), req)
		got := ""
		for _, result := range found {
			got += result.Name
		}
		if err != nil || got != want {
			t.Errorf("%+v: %q, %v", req, got, err)
		}
	}
	if _, err := f.Search(t.Context(), SearchRequest{Term: "x", Limit: 101}); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a limit of 101: %v", err)
	}
	for term, want := range map[string]string{"busybox": "index.docker.io|busybox", "a/b": "index.docker.io|a/b", "docker.io/a": "index.docker.io|a", "h:5000/a/b": "h:5000|a/b"} {
		if domain, rest := searchHost(term); domain+"|"+rest != want {
			t.Errorf("%s: %s|%s", term, domain, rest)
		}
	}
}
