package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	gname "github.com/google/go-containerregistry/pkg/name"
	memory "github.com/google/go-containerregistry/pkg/registry"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// far is a registry in memory; before sees every request first and may answer
// it.
type far struct {
	host    string
	blobs   atomic.Int64 // GETs of blobs
	uploads atomic.Int64 // begun
	before  atomic.Pointer[func(w http.ResponseWriter, r *http.Request) (answered bool)]
}

func newFar(t testing.TB) *far {
	f := &far{}
	next := memory.New(memory.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before := f.before.Load(); before != nil && (*before)(w, r) {
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			f.blobs.Add(1)
		}
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/") {
			f.uploads.Add(1)
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.host = strings.TrimPrefix(server.URL, "http://")
	return f
}

func (f *far) ref(t testing.TB, name string) gname.Reference {
	ref, err := gname.ParseReference(f.host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (f *far) put(t testing.TB, name string, image greg.Image) {
	t.Helper()
	if err := remote.Write(f.ref(t, name), image); err != nil {
		t.Fatal(err)
	}
}

// connected is a fixture with a client.
func connected(t testing.TB, root string, mirrors ...string) *fixture {
	f := openFixture(t, root)
	client, err := registry.Open(registry.Options{Dir: filepath.Join(root, "tmp"), Mirrors: mirrors, Backoff: func(int) time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	f.Remote = client
	return f
}

// lines are the messages of a stream without bars.
type lines struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

func (l *lines) report(m jsonstream.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Progress == nil {
		l.all = append(l.all, strings.TrimPrefix(m.ID+": "+m.Status, ": "))
	}
}

func (l *lines) String() string { return strings.Join(l.all, "\n") }

func (f *fixture) mustPull(t testing.TB, name string) string {
	t.Helper()
	var said lines
	if err := f.Pull(t.Context(), PullRequest{Image: name}, said.report); err != nil {
		t.Fatal(err)
	}
	return said.String()
}

func layered(t testing.TB, bodies ...string) greg.Image {
	var tars [][]tarFile
	for _, body := range bodies {
		tars = append(tars, []tarFile{{body[:1], body}})
	}
	return build(t, greg.Config{Labels: map[string]string{"a": "b"}}, tars...)
}

func TestPullTellsAndNames(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	image := layered(t, "1", "2")
	r.put(t, "some/web:1", image)
	digest, _ := image.Digest()
	said := f.mustPull(t, r.host+"/some/web:1")
	for _, part := range []string{"1: Pulling from some/web\n", ": Pulling fs layer\n", ": Download complete\n", ": Pull complete\n", "\nDigest: " + digest.String() + "\n", "\nStatus: Downloaded newer image for " + r.host + "/some/web:1"} {
		if !strings.Contains(said, part) {
			t.Errorf("no %q in\n%s", part, said)
		}
	}
	got, err := f.Resolve(t.Context(), r.host+"/some/web@"+digest.String())
	if err != nil || len(got.References) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if said := f.mustPull(t, r.host+"/some/web:1"); !strings.HasSuffix(said, "Status: Image is up to date for "+r.host+"/some/web:1") {
		t.Errorf("again:\n%s", said)
	}
	r.put(t, "some/web:2", layered(t, "1", "3"))
	before := r.blobs.Load()
	if said := f.mustPull(t, r.host+"/some/web:2"); strings.Count(said, "Already exists") != 1 || strings.Count(said, "Pull complete") != 1 {
		t.Errorf("one layer new:\n%s", said)
	}
	if n := r.blobs.Load() - before; n != 2 { // configuration and layer
		t.Errorf("%d blobs fetched", n)
	}
	if told := f.told(t); len(told) == 0 || told[0] != "pull" {
		t.Errorf("events %v", told)
	}
	if left, _ := filepath.Glob(filepath.Join(f.root, "tmp", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPullChoosesThePlatform(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	var index greg.ImageIndex = empty.Index
	for _, platform := range []greg.Platform{{OS: "linux", Architecture: "s390x"}, {OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}, {OS: "linux", Architecture: "arm", Variant: "v6"}} {
		image := layered(t, platform.Architecture)
		config, _ := image.ConfigFile()
		config = config.DeepCopy()
		config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
		image, err := mutate.ConfigFile(image, config)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: greg.Descriptor{Platform: &platform}})
	}
	if err := remote.WriteIndex(r.ref(t, "multi:1"), index); err != nil {
		t.Fatal(err)
	}
	for _, architecture := range []string{"s390x", "arm64", "amd64"} {
		platform := &ocispec.Platform{OS: "linux", Architecture: architecture}
		if err := f.Pull(t.Context(), PullRequest{Image: r.host + "/multi", Tag: "1", Platform: platform}, func(jsonstream.Message) {}); err != nil {
			t.Fatal(err)
		}
		got, err := f.Resolve(t.Context(), r.host+"/multi:1")
		if err != nil || got.Config.Architecture != architecture {
			t.Errorf("wanted %s: %+v, %v", architecture, got.Config.Platform, err)
		}
		digest, _ := index.Digest()
		if by, err := f.Resolve(t.Context(), r.host+"/multi@"+digest.String()); err != nil || by.ID != got.ID {
			t.Errorf("by the index' digest: %v", err)
		}
	}
	for variant, runs := range map[string]bool{"v7": true, "v6": true, "v5": false} { // a later processor runs it, too
		err := f.Pull(t.Context(), PullRequest{Image: r.host + "/multi:1", Platform: &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: variant}}, func(jsonstream.Message) {})
		if (err == nil) != runs {
			t.Errorf("%s of an index with v6: %v", variant, err)
		}
	}
	err := f.Pull(t.Context(), PullRequest{Image: r.host + "/multi:1", Platform: &ocispec.Platform{OS: "linux", Architecture: "riscv64"}}, func(jsonstream.Message) {})
	if errdefs.KindOf(err) != errdefs.NotFound || err.Error() != "no matching manifest for linux/riscv64 in the manifest list entries" {
		t.Errorf("a platform that is not there: %v", err)
	}
}

func TestScratchIsNoImage(t *testing.T) {
	f := connected(t, t.TempDir())
	for _, name := range []string{"scratch", "docker.io/library/scratch:1"} {
		if err := f.Pull(t.Context(), PullRequest{Image: name}, func(jsonstream.Message) {}); errdefs.KindOf(err) != errdefs.PermissionDenied || err.Error() != "'scratch' is a reserved name" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// How hard a layer was packed may be learned when its blob is known already.
func TestTheLevelOfABlobIsTheOneToldLast(t *testing.T) {
	f := connected(t, t.TempDir())
	diffs, blobs := []digest.Digest{digest.FromString("diff")}, []ocispec.Descriptor{{Digest: digest.FromString("blob")}}
	for _, step := range []struct {
		levels map[digest.Digest]int
		want   int
	}{{nil, gzip.DefaultCompression}, {map[digest.Digest]int{blobs[0].Digest: 9}, 9}, {nil, 9}} {
		err := f.db.Update(t.Context(), func(tx *sql.Tx) error {
			return rememberBlobs(t.Context(), tx, "example.com/a", diffs, blobs, step.levels)
		})
		if err != nil {
			t.Fatal(err)
		}
		if known, err := f.blobsOf(t.Context(), diffs[0]); err != nil || len(known) != 1 || known[0].level != step.want {
			t.Errorf("told %v: %+v, %v", step.levels, known, err)
		}
	}
}

func TestPullUnpacksZstdAndPlainLayers(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	opener := func(body string) tarball.Opener {
		return func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(tarOf(t, tarFile{body, body}))), nil
		}
	}
	zstd, err := tarball.LayerFromOpener(opener("z"), tarball.WithCompression(compression.ZStd), tarball.WithMediaType(types.OCILayerZStd))
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), zstd)
	if err != nil {
		t.Fatal(err)
	}
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	r.put(t, "z:1", image)
	f.mustPull(t, r.host+"/z:1")
	config, _ := image.ConfigName()
	if got, err := f.Resolve(t.Context(), r.host+"/z:1"); err != nil || got.ID.String() != config.String() || got.Size != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestManyPullsFetchABlobOnce(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	r.put(t, "web:1", layered(t, "1", "2", "3"))
	var pulling sync.WaitGroup
	for range 6 {
		pulling.Go(func() {
			if err := f.Pull(t.Context(), PullRequest{Image: r.host + "/web:1"}, func(jsonstream.Message) {}); err != nil {
				t.Error(err)
			}
		})
	}
	pulling.Wait()
	if n := r.blobs.Load(); n > 3+6 { // each pull reads the configuration itself
		t.Errorf("%d blobs fetched", n)
	}
	if _, err := f.Resolve(t.Context(), r.host+"/web:1"); err != nil {
		t.Error(err)
	}
}

// Whatever goes wrong, nothing of the image is there, and the next pull works.
func TestAFailedPullLeavesNothing(t *testing.T) {
	image := layered(t, "1", "2")
	layers, _ := image.Layers()
	top, _ := layers[1].Digest()
	other, _ := layers[0].Digest()
	for name, fault := range map[string]func(w http.ResponseWriter, cancel context.CancelFunc){
		"wrong content": func(w http.ResponseWriter, _ context.CancelFunc) { _, _ = io.WriteString(w, strings.Repeat("x", 200)) },
		"not there":     func(w http.ResponseWriter, _ context.CancelFunc) { http.Error(w, "", http.StatusNotFound) },
		"refused":       func(w http.ResponseWriter, _ context.CancelFunc) { http.Error(w, "", http.StatusForbidden) },
		"cancelled": func(_ http.ResponseWriter, cancel context.CancelFunc) {
			cancel()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, r := connected(t, t.TempDir()), newFar(t)
			r.put(t, "web:1", image)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			before := func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, top.String()) {
					fault(w, cancel)
					return true
				}
				return false
			}
			r.before.Store(&before)
			if err := f.Pull(ctx, PullRequest{Image: r.host + "/web:1"}, func(jsonstream.Message) {}); err == nil {
				t.Fatal("it went well")
			}
			if _, err := f.Resolve(t.Context(), r.host+"/web:1"); errdefs.CodeOf(err) != errdefs.NoSuchImage {
				t.Errorf("afterwards: %v", err)
			}
			if all, err := f.layers.All(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("%d layers left, %v (bottom %s)", len(all), err, other)
			}
			r.before.Store(nil)
			f.mustPull(t, r.host+"/web:1")
		})
	}
}

// A mirror that has the manifest and no good layer does not spoil the pull.
func TestAMirrorThatFailsIsGivenUp(t *testing.T) {
	image := layered(t, "1", "2")
	layers, _ := image.Layers()
	top, _ := layers[1].Digest()
	content, err := layers[1].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(content)
	if err != nil {
		t.Fatal(err)
	}
	for name, fault := range map[string]func(w http.ResponseWriter){
		"other content":     func(w http.ResponseWriter) { _, _ = w.Write(bytes.Repeat([]byte("x"), len(whole))) },
		"damage at the end": func(w http.ResponseWriter) { _, _ = w.Write(append(bytes.Clone(whole[:len(whole)-1]), 'x')) },
		"cut again and again": func(w http.ResponseWriter) {
			_, _ = w.Write(whole[:10])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"overloaded all along": func(w http.ResponseWriter) { http.Error(w, "", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			mirror, r := newFar(t), newFar(t)
			f := connected(t, t.TempDir(), r.host+"=http://"+mirror.host)
			mirror.put(t, "web:1", image)
			r.put(t, "web:1", image)
			var asked atomic.Int64
			before := func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, top.String()) {
					return false
				}
				asked.Add(1)
				fault(w)
				return true
			}
			mirror.before.Store(&before)
			f.mustPull(t, r.host+"/web:1")
			if asked.Load() == 0 {
				t.Error("the mirror was not asked")
			}
			if left, _ := filepath.Glob(filepath.Join(f.root, "tmp", "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestPullRefusesAConfigurationOfOtherLayers(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	image := layered(t, "1")
	config, _ := image.ConfigFile()
	config = config.DeepCopy()
	config.RootFS.DiffIDs[0] = greg.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	lying, err := mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, "web:1", lying)
	if err := f.Pull(t.Context(), PullRequest{Image: r.host + "/web:1"}, func(jsonstream.Message) {}); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestPushSendsWhatIsMissing(t *testing.T) {
	f, from, to := connected(t, t.TempDir()), newFar(t), newFar(t)
	image := layered(t, "1", "2")
	from.put(t, "web:1", image)
	f.mustPull(t, from.host+"/web:1")
	if err := f.Tag(t.Context(), from.host+"/web:1", to.host+"/a/b", "2"); err != nil {
		t.Fatal(err)
	}
	push := func() string {
		t.Helper()
		var said lines
		if err := f.Push(t.Context(), PushRequest{Image: to.host + "/a/b", Tag: "2"}, said.report); err != nil {
			t.Fatal(err)
		}
		return said.String()
	}
	if said := push(); strings.Count(said, ": Pushed") != 2 {
		t.Errorf("first:\n%s", said)
	}
	sent := to.uploads.Load()
	if said := push(); strings.Count(said, "Layer already exists") != 2 || to.uploads.Load() != sent {
		t.Errorf("second, %d uploads before and %d after:\n%s", sent, to.uploads.Load(), said)
	}
	got, err := remote.Image(to.ref(t, "a/b:2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	have, _ := got.Digest()
	if want, _ := image.Digest(); have != want {
		t.Errorf("digest %s, pulled with %s", have, want)
	}
}
