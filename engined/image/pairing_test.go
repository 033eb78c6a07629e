package image

import (
	"slices"
	"strings"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
)

// misnamed is a layer whose blob is another's.
type misnamed struct {
	greg.Layer
	diff greg.Hash
}

func (m misnamed) DiffID() (greg.Hash, error) { return m.diff, nil }

// A layer that is here is not fetched, so nothing shows that the blob which a
// manifest gives it is the layer's. Such a blob must not go into what is pushed.
func TestABlobThatWasNotUnpackedIsNotPushedForALayer(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	honest, other := layered(t, "1"), layered(t, "2")
	r.put(t, "good/web:1", honest)
	f.mustPull(t, r.host+"/good/web:1")
	base, foreign := onlyLayer(t, honest), onlyLayer(t, other)
	diff, _ := base.DiffID()
	lying, err := mutate.AppendLayers(empty.Image, misnamed{foreign, diff})
	if err != nil {
		t.Fatal(err)
	}
	r.put(t, "evil/x:1", lying)
	if said := f.mustPull(t, r.host+"/evil/x:1"); !strings.Contains(said, "Already exists") {
		t.Fatalf("the layer was fetched:\n%s", said)
	}
	if err := f.Tag(t.Context(), r.host+"/good/web:1", r.host+"/mine/web", "1"); err != nil {
		t.Fatal(err)
	}
	var said lines
	if err := f.Push(t.Context(), PushRequest{Image: r.host + "/mine/web", Tag: "1"}, said.report); err != nil {
		t.Fatal(err)
	}
	pushed, err := remote.Image(r.ref(t, "mine/web:1"))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := base.Digest()
	if have, _ := onlyLayer(t, pushed).Digest(); have != want {
		t.Errorf("pushed with blob %s, the layer's is %s:\n%s", have, want, said.String())
	}
}

// A pairing that was seen to be true is true in every repository.
func TestAKnownBlobIsRecordedForTheNextRepository(t *testing.T) {
	f, r := connected(t, t.TempDir()), newFar(t)
	image := layered(t, "1")
	for _, name := range []string{"a/web", "b/web"} {
		r.put(t, name+":1", image)
		f.mustPull(t, r.host+"/"+name+":1")
	}
	diff, _ := onlyLayer(t, image).DiffID()
	known, err := f.blobsOf(t.Context(), digest.Digest(diff.String()))
	if err != nil {
		t.Fatal(err)
	}
	if in := func(name string) bool {
		return slices.ContainsFunc(known, func(b seenBlob) bool { return b.repository == r.host+"/"+name })
	}; !in("a/web") || !in("b/web") {
		t.Errorf("known: %+v", known)
	}
}

func onlyLayer(t *testing.T, image greg.Image) greg.Layer {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	return layers[0]
}
