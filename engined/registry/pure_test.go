package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

func TestInsecureHosts(t *testing.T) {
	in, err := parseInsecure([]string{"my.registry:5000", "10.1.0.0/16", "http://old.style"})
	if err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]bool{
		"127.0.0.1:5000": true, "127.9.9.9": true, "[::1]:5000": true, "[::ffff:127.0.0.1]:1": true, "my.registry:5000": true,
		"10.1.2.3:80": true, "10.1.2.3": true, "old.style": true, "10.2.0.1": false, "192.168.1.1:5000": false, "[2001:db8::1]:5000": false,
	} {
		if got := in.holds(context.Background(), given); got != want {
			t.Errorf("%s: %v", given, got)
		}
	}
	for _, bad := range []string{"", "a/b", "http://", "user@host"} {
		if _, err := parseInsecure([]string{bad}); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// go-containerregistry would talk plain HTTP in private networks.
func TestPlainHTTPOnlyWhereItIsAllowed(t *testing.T) {
	c, err := Open(Options{Dir: t.TempDir(), Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr, err := c.transport(host{"10.0.0.1:5000", false})
	if err != nil {
		t.Fatal(err)
	}
	_, err = tr.RoundTrip(httptest.NewRequest(http.MethodGet, "http://10.0.0.1:5000/v2/", nil))
	if errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("got %v", err)
	}
}

func TestMirrors(t *testing.T) {
	got, err := parseMirrors([]string{"https://mirror.example/", "http://127.0.0.1:5000", "quay.example:5000=https://other.example"})
	if want := map[string][]host{hub: {{"mirror.example", false}, {"127.0.0.1:5000", true}}, "quay.example:5000": {{"other.example", false}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"mirror.example", "ftp://a", "https://a/path", "https://u:secret@a", "https://a?b", "", "a/b=https://c", "=https://a", "a="} {
		if _, err := parseMirrors([]string{bad}); errdefs.KindOf(err) != errdefs.InvalidArgument || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestChoosingAPlatform(t *testing.T) {
	entry := func(platform string) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: DockerManifest, Digest: digest.FromString(platform), Size: 1}
		if parts := strings.Split(platform+"//", "/"); platform != "" {
			d.Platform = &ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
		}
		return d
	}
	for _, test := range []struct{ has, wanted, chosen string }{
		{"linux/arm64 linux/amd64 windows/amd64", "linux/amd64", "linux/amd64"},
		{"linux/arm/v5 linux/arm/v6 linux/arm/v7", "linux/arm/v6", "linux/arm/v6"},
		{"linux/arm/v5 linux/arm/v6", "linux/arm/v7", "linux/arm/v6"},
		{"linux/arm/v7", "linux/arm/v6", "none"},
		{"linux/arm64/v8", "linux/arm64", "linux/arm64/v8"},
		{"linux/amd64/v3 linux/amd64", "linux/amd64", "linux/amd64"},
		{"unknown/unknown linux/amd64", "linux/amd64", "linux/amd64"},
		{"linux/s390x", "linux/amd64", "none"},
	} {
		var entries []ocispec.Descriptor
		for _, platform := range strings.Fields(test.has) {
			entries = append(entries, entry(platform))
		}
		chosen, found := choose(entries, *entry(test.wanted).Platform)
		if got := entry(test.chosen).Digest; found && chosen.Digest != got || found != (test.chosen != "none") {
			t.Errorf("%s of %s: found %v, %v", test.wanted, test.has, found, chosen.Platform)
		}
	}
	if chosen, found := choose([]ocispec.Descriptor{entry("")}, ocispec.Platform{OS: "linux"}); !found || chosen.Platform != nil {
		t.Error("an entry without a platform does not suit")
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	good := ocispec.Descriptor{MediaType: DockerConfig, Digest: digest.FromString("x"), Size: 1}
	layer := func(change func(*ocispec.Descriptor)) ocispec.Manifest {
		d := ocispec.Descriptor{MediaType: DockerLayerGzip, Digest: digest.FromString("y"), Size: 1}
		change(&d)
		m := ocispec.Manifest{Config: good, Layers: []ocispec.Descriptor{d}}
		m.SchemaVersion = 2
		return m
	}
	for name, test := range map[string]struct {
		manifest ocispec.Manifest
		kind     errdefs.Kind
	}{
		"good":          {layer(func(*ocispec.Descriptor) {}), ""},
		"zstd":          {layer(func(d *ocispec.Descriptor) { d.MediaType = ocispec.MediaTypeImageLayerZstd }), ""},
		"foreign":       {layer(func(d *ocispec.Descriptor) { d.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" }), errdefs.NotImplemented},
		"not a layer":   {layer(func(d *ocispec.Descriptor) { d.MediaType = "application/wasm" }), errdefs.NotImplemented},
		"digest a path": {layer(func(d *ocispec.Descriptor) { d.Digest = "sha256:../../../etc/passwd" }), errdefs.InvalidArgument},
		"digest weak":   {layer(func(d *ocispec.Descriptor) { d.Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" }), errdefs.InvalidArgument},
		"negative size": {layer(func(d *ocispec.Descriptor) { d.Size = -1 }), errdefs.InvalidArgument},
		"not an image": {func() ocispec.Manifest {
			m := layer(func(*ocispec.Descriptor) {})
			m.Config.MediaType = "application/helm"
			return m
		}(), errdefs.NotImplemented},
		"schema 1": {ocispec.Manifest{}, errdefs.NotImplemented},
		"many layers": {func() ocispec.Manifest {
			m := layer(func(*ocispec.Descriptor) {})
			m.Layers = make([]ocispec.Descriptor, maxLayers+1)
			return m
		}(), errdefs.InvalidArgument},
	} {
		raw, err := json.Marshal(test.manifest)
		if err != nil {
			t.Fatal(err)
		}
		found := Resolved{Manifest: Manifest{Descriptor: ocispec.Descriptor{MediaType: DockerManifest}, Raw: raw}}
		if err := found.parse(); errdefs.KindOf(err) != test.kind || (err == nil) != (test.kind == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
	found := Resolved{Manifest: Manifest{Descriptor: ocispec.Descriptor{MediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws"}, Raw: []byte("{}")}}
	if err := found.parse(); errdefs.KindOf(err) != errdefs.NotImplemented {
		t.Errorf("a schema 1 manifest: %v", err)
	}
}

func TestWordsOfRefusals(t *testing.T) {
	ref, err := reference.ParseNormalizedNamed("foo:bar")
	if err != nil {
		t.Fatal(err)
	}
	for body, test := range map[string]struct {
		status int
		header string
		words  string
		kind   errdefs.Kind
	}{
		`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"bar"}}]}`: {404, "", "manifest for foo:bar not found: manifest unknown: manifest unknown", errdefs.NotFound},
		`{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`:       {404, "", "repository foo not found: name unknown: repository name not known to registry", errdefs.NotFound},
		`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`:        {403, "", "pull access denied for foo, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", errdefs.NotFound},
		`{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`:                     {401, `Bearer realm="r",error="insufficient_scope"`, "pull access denied for foo, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", errdefs.NotFound},
		`{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`:   {429, "", "toomanyrequests: You have reached your pull rate limit.", errdefs.Unavailable},
	} {
		response := &http.Response{StatusCode: test.status, Header: http.Header{"Www-Authenticate": {test.header}}, Body: io.NopCloser(strings.NewReader(body))}
		got := classify(fmt.Errorf("wrapped: %w", &refusal{cause: transport.CheckError(response, 200), header: response.Header}), ref)
		if got.Error() != test.words || errdefs.KindOf(got) != test.kind {
			t.Errorf("%s:\n%s of kind %q\nwant\n%s of kind %q", body, got, errdefs.KindOf(got), test.words, test.kind)
		}
	}
}

func TestSweepKeepsWhatCanBeGoneOnWith(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for file, age := range map[string]time.Duration{"blob-sha256-a": time.Hour, "blob-sha256-b": keepPartial + time.Hour, "push-1": 0, "other": 2 * keepPartial} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(dir, now); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "blob-sha256-a" || filepath.Base(left[1]) != "other" {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	q := &queue{free: 1}
	first, second, third := q.join(), q.join(), q.join()
	if err := first.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.leave() // gave up
	first.leave()
	if err := third.wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	fourth := q.join()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if fourth.wait(ctx) == nil {
		t.Error("the fourth came while the third has its turn")
	}
	fourth.leave()
	third.leave()
	if q.free != 1 || len(q.waiting) != 0 {
		t.Errorf("in the end %d free, %d waiting", q.free, len(q.waiting))
	}
}

func FuzzResolved(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1},"layers":[]}`))
	f.Add([]byte(`{"manifests":[{"platform":{"os":"linux","architecture":"arm","variant":"v99"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		found := Resolved{Manifest: Manifest{Descriptor: ocispec.Descriptor{MediaType: DockerManifest}, Raw: raw}}
		if found.parse() == nil {
			for _, l := range append(found.Layers, found.Config) {
				if l.Size < 0 || strings.ContainsAny(l.Digest.Encoded(), "/.") {
					t.Errorf("accepted %+v", l)
				}
			}
		}
		if chosen, err := chooseFrom(Manifest{Raw: raw}, nil); err == nil && chosen.Digest.Validate() != nil {
			t.Errorf("chose %+v", chosen)
		}
	})
}
