package registry

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a push sends is sent again if the registry is in trouble for a moment, at
// any of its steps.
func TestUploadSurvives(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request){
		"an error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusInternalServerError) },
		"too many requests": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, http.StatusTooManyRequests)
		},
		"a cut": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			panic(http.ErrAbortHandler)
		},
	} {
		for step, is := range map[string]func(r *http.Request) bool{
			"asking":    func(r *http.Request) bool { return r.Method == http.MethodHead },
			"beginning": func(r *http.Request) bool { return r.Method == http.MethodPost },
			"sending": func(r *http.Request) bool {
				return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/")
			},
			"the manifest": func(r *http.Request) bool {
				return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
			},
		} {
			t.Run(name+" when "+step, func(t *testing.T) {
				f := newFixture(t, Options{})
				var failed atomic.Int64
				once := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					if is(r) && failed.Add(1) < 3 {
						fault(w, r)
						return
					}
					next.ServeHTTP(w, r)
				}
				f.fault.Store(&once)
				push := f.Push(t.Context(), f.named("some/thing"), Auth{}, nil)
				if err := push.Upload(t.Context(), f.blob, bytes.NewReader(f.content), func(int64) {}); err != nil {
					t.Fatal(err)
				}
				raw := []byte(`{"schemaVersion":2}`)
				if err := push.Put(t.Context(), "1", Manifest{Descriptor: ocispec.Descriptor{MediaType: DockerManifest}, Raw: raw}); err != nil {
					t.Fatal(err)
				}
				if has, err := push.Has(t.Context(), f.blob); !has || err != nil {
					t.Error(has, err)
				}
				if got, err := f.repo.Manifest(t.Context(), "1"); err != nil || !bytes.Equal(got.Raw, raw) {
					t.Errorf("%s, %v", got.Raw, err)
				}
				if failed.Load() < 2 {
					t.Error("nothing failed")
				}
			})
		}
	}
}
