package registry

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/reference"
)

// A mirror is asked first, and what it does not have comes from the registry.
func TestMirrorsAreAskedFirst(t *testing.T) {
	f := newFixture(t, Options{})
	mirror := newFixture(t, Options{})
	var asked atomic.Int64
	lost := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path != "/v2/" {
			asked.Add(1)
			if r.Header.Get("Authorization") != "" {
				t.Error("a mirror got the registry's credentials")
			}
		}
		next.ServeHTTP(w, r)
	}
	mirror.fault.Store(&lost)
	at := host{strings.TrimPrefix(mirror.server.URL, "http://"), true}
	for _, path := range []string{"some/thing", "only/there"} { // the mirror has the first
		push := f.Push(t.Context(), f.named(path), Auth{}, nil)
		if err := push.Upload(t.Context(), f.blob, bytes.NewReader(f.content), func(int64) {}); err != nil {
			t.Fatal(err)
		}
		asked.Store(0)
		_ = os.Remove(filepath.Join(f.dir, "blob-sha256-"+f.blob.Digest.Encoded())) // of the round before
		f.repo = f.Pull(t.Context(), f.named(path), Auth{Username: "u", Password: "p"})
		f.repo.remotes = append([]*remote{{client: f.Client, host: at, auth: authenticator(Auth{})}}, f.repo.remotes...)
		if path == "only/there" {
			gone := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.URL.Path == "/v2/" {
					next.ServeHTTP(w, r)
					return
				}
				asked.Add(1)
				http.Error(w, "", http.StatusNotFound)
			}
			mirror.fault.Store(&gone)
		}
		if got, err := f.fetch(t.Context()); err != nil || !bytes.Equal(got, f.content) {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
		if asked.Load() != 1 {
			t.Errorf("%s: the mirror was asked %d times", path, asked.Load())
		}
	}
}

// A mirror may be insecure as any registry: here by its address.
func TestAnInsecureMirror(t *testing.T) {
	var asked atomic.Int64
	mirror := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.URL.Path != "/v2/" {
			_, _ = io.WriteString(w, "{}")
		}
	}))
	t.Cleanup(mirror.Close)
	f := newFixture(t, Options{Mirrors: []string{"registry.example=" + mirror.URL}})
	named, err := reference.ParseNormalizedNamed("registry.example/some/thing")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Pull(t.Context(), named, Auth{}).Manifest(t.Context(), "1"); err != nil || string(got.Raw) != "{}" || asked.Load() != 2 {
		t.Errorf("%q, %v; asked %d times", got.Raw, err, asked.Load())
	}
}
