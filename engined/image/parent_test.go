package image

import (
	"encoding/json"
	"fmt"
	"io"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/api/types/jsonstream"
)

// saidToHave is an archive of an image with a parent that manifest.json names.
func saidToHave(t *testing.T, image greg.Image, parent string) [][2]string {
	t.Helper()
	raw, err := image.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	entry := dockerImage{Config: "config.json", RepoTags: []string{"loaded:1"}}
	files := [][2]string{{"config.json", string(raw)}}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		stream, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(stream)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.tar", i)
		entry.Layers = append(entry.Layers, name)
		files = append(files, [2]string{name, string(content)})
	}
	listed, err := json.Marshal([]map[string]any{{"Config": entry.Config, "RepoTags": entry.RepoTags, "Layers": entry.Layers, "Parent": parent}})
	if err != nil {
		t.Fatal(err)
	}
	return append(files, [2]string{"manifest.json", string(listed)})
}

// An archive cannot make any image a parent: a parent cannot be removed.
func TestOnlyTheImageOneStepBeforeIsAParent(t *testing.T) {
	below := layered(t, "1", "2")
	for name, c := range map[string]struct {
		loaded greg.Image
		want   bool
	}{
		"one step more":     {layered(t, "1", "2", "3"), true},
		"two steps more":    {layered(t, "1", "2", "3", "4"), false},
		"a step less":       {layered(t, "1"), false},
		"another image":     {layered(t, "5", "6", "7"), false},
		"another top":       {layered(t, "1", "3", "2"), false},
		"the same layers":   {build(t, greg.Config{Labels: map[string]string{"c": "d"}}, []tarFile{{"1", "1"}}, []tarFile{{"2", "2"}}), false},
		"nothing in common": {layered(t, "9"), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.mustLoad(t, archiveOf(t, map[string]greg.Image{"below:1": below}))
			if err := f.Load(t.Context(), packed(t, saidToHave(t, c.loaded, idOf(t, below).String())), LoadOptions{}, func(jsonstream.Message) {}); err != nil {
				t.Fatal(err)
			}
			got, err := f.Inspect(t.Context(), "loaded:1")
			if err != nil {
				t.Fatal(err)
			}
			if has := got.Parent != ""; has != c.want {
				t.Errorf("parent %q, want one: %v", got.Parent, c.want)
			}
			if _, err := f.Remove(t.Context(), idOf(t, below).String(), RemoveOptions{}); (err != nil) != c.want {
				t.Errorf("removing the other image: %v", err)
			}
		})
	}
}
