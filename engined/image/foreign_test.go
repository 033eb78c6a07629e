package image

import (
	"strings"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/engined/engined/proto/errdefs"
)

// What cannot be unpacked here is refused before anything of it is fetched.
func TestForeignMediaTypesAreRefused(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	content := static.NewLayer([]byte("x"), types.DockerLayer)
	for name, image := range map[string]greg.Image{
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": with(t, static.NewLayer([]byte("x"), types.DockerForeignLayer)),
		"application/vnd.oci.image.layer.v1.tar+gzip+encrypted":     with(t, static.NewLayer([]byte("x"), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted")),
		"application/vnd.in-toto+json":                              with(t, content, static.NewLayer([]byte("{}"), "application/vnd.in-toto+json")),
		"application/vnd.docker.plugin.v1+json":                     mutate.ConfigMediaType(with(t, content), "application/vnd.docker.plugin.v1+json"),
		"application/vnd.example.manifest":                          mutate.MediaType(with(t, content), "application/vnd.example.manifest"),
	} {
		r.put(t, "it:1", image)
		r.blobs.Store(0)
		err := f.Pull(t.Context(), PullRequest{Image: r.host + "/it:1"}, (&lines{}).report)
		if errdefs.KindOf(err) != errdefs.NotImplemented || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %q %v", name, errdefs.KindOf(err), err)
		}
		if n := r.blobs.Load(); n != 0 {
			t.Errorf("%s: %d blobs were fetched", name, n)
		}
	}
}

func with(t *testing.T, layers ...greg.Layer) greg.Image {
	t.Helper()
	var added []mutate.Addendum
	for _, l := range layers {
		added = append(added, mutate.Addendum{Layer: l})
	}
	image, err := mutate.Append(empty.Image, added...)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
