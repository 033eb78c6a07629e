package image

import (
	"reflect"
	"strings"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// records writes a removal's answer as `docker rmi` does, ids shortened.
func records(list []apiimage.DeleteResponse) string {
	var words []string
	for _, r := range list {
		switch {
		case r.Untagged != "":
			words = append(words, "Untagged "+r.Untagged)
		default:
			words = append(words, "Deleted")
		}
	}
	return strings.Join(words, ", ")
}

func TestRemovingByNameAndById(t *testing.T) {
	f := newFixture(t)
	id := f.mustImport(t, "a", "1")
	for _, tag := range []string{"second", "third"} {
		if err := f.Tag(t.Context(), "a", "a", tag); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Remove(t.Context(), id.String(), RemoveOptions{}); err == nil ||
		err.Error() != "conflict: unable to delete "+id.Encoded()[:12]+" (must be forced) - image is referenced in multiple repositories" {
		t.Errorf("by id with several names: %v", err)
	}
	for _, step := range []struct{ ref, want string }{
		{"a:second", "Untagged a:second"},
		{"a:third", "Untagged a:third"},
		{"a", "Untagged a:latest, Deleted, Deleted"},
	} {
		got, err := f.Remove(t.Context(), step.ref, RemoveOptions{})
		if err != nil || records(got) != step.want {
			t.Errorf("%s: %s, %v; want %s", step.ref, records(got), err, step.want)
		}
	}
	if _, err := f.Remove(t.Context(), "a", RemoveOptions{}); errdefs.CodeOf(err) != errdefs.NoSuchImage {
		t.Errorf("again: %v", err)
	}
	if all, _ := f.layers.All(t.Context()); len(all) != 0 {
		t.Errorf("layers left: %v", all)
	}
	if told, want := f.told(t), []string{"tag", "import", "tag", "tag", "untag", "untag", "untag", "delete"}; !reflect.DeepEqual(told, want) {
		t.Errorf("events %v, want %v", told, want)
	}
	id = f.mustImport(t, "b", "1")
	if err := f.Tag(t.Context(), "b", "c", ""); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Remove(t.Context(), id.String(), RemoveOptions{Force: true}); err != nil || records(got) != "Untagged b:latest, Untagged c:latest, Deleted, Deleted" {
		t.Errorf("forced by id: %s, %v", records(got), err)
	}
}

func TestAnImageInUseIsNotRemoved(t *testing.T) {
	running := map[string]bool{container: true}
	short := container[:12]
	for name, test := range map[string]struct {
		byID, force bool
		running     map[string]bool
		want        string // error, IMAGE for the short id; or the records
	}{
		"stopped, by name":         {false, false, nil, `conflict: unable to remove repository reference "a" (must force) - container ` + short + ` is using its referenced image IMAGE`},
		"running, by name":         {false, false, running, `conflict: unable to remove repository reference "a" (must force) - container ` + short + ` is using its referenced image IMAGE`},
		"stopped, by id":           {true, false, nil, `conflict: unable to delete IMAGE (must be forced) - image is being used by stopped container ` + short},
		"running, by id":           {true, false, running, `conflict: unable to delete IMAGE (cannot be forced) - image is being used by running container ` + short},
		"running, by id, forced":   {true, true, running, `conflict: unable to delete IMAGE (cannot be forced) - image is being used by running container ` + short},
		"running, by name, forced": {false, true, running, "Untagged a:latest"},
		"stopped, by name, forced": {false, true, nil, "Untagged a:latest, Deleted"},
		"stopped, by id, forced":   {true, true, nil, "Untagged a:latest, Deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			id := f.mustImport(t, "a", "1")
			image, err := f.Resolve(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Hold(t.Context(), id, "container/"+container); err != nil {
				t.Fatal(err)
			}
			if err := f.layers.Create(t.Context(), container, image.Chain, layer.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			ref := "a"
			if test.byID {
				ref = id.String()
			}
			got, err := f.Remove(t.Context(), ref, RemoveOptions{Force: test.force, Running: test.running})
			want := strings.ReplaceAll(test.want, "IMAGE", id.Encoded()[:12])
			if err != nil {
				if errdefs.KindOf(err) != errdefs.Conflict || errdefs.CodeOf(err) != errdefs.ImageInUse || err.Error() != want {
					t.Errorf("got %v, want %s", err, want)
				}
			} else if records(got) != want {
				t.Errorf("got %s, want %s", records(got), want)
			}
			// Whatever happened to the image, the container's files are there.
			if _, err := f.layers.Mount(t.Context(), container); err != nil {
				t.Error(err)
			}
			if err := f.Release(t.Context(), "container/"+container); err != nil {
				t.Error(err)
			}
			if err := f.layers.Remove(t.Context(), container); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHoldingWhatIsGoneFails(t *testing.T) {
	f := newFixture(t)
	if err := f.Hold(t.Context(), digest.FromString("x"), "container/x"); errdefs.CodeOf(err) != errdefs.NoSuchImage {
		t.Errorf("%v", err)
	}
	if err := f.Release(t.Context(), "container/none"); err != nil {
		t.Error(err)
	}
}

func TestPruneTakesNamelessImagesThatNobodyUses(t *testing.T) {
	f := newFixture(t)
	f.mustImport(t, "named", "1")
	f.mustImport(t, "", "22")
	used := f.mustImport(t, "", "333")
	if err := f.Hold(t.Context(), used, "container/x"); err != nil {
		t.Fatal(err)
	}
	report, err := f.Prune(t.Context(), nil, nil)
	if err != nil || records(report.ImagesDeleted) != "Deleted, Deleted" || report.SpaceReclaimed != 2 {
		t.Errorf("%+v, %v", report, err)
	}
	report, err = f.Prune(t.Context(), Filters{"dangling": {"false"}}, nil)
	if err != nil || records(report.ImagesDeleted) != "Untagged named:latest, Deleted, Deleted" || report.SpaceReclaimed != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if n, err := f.Count(t.Context()); err != nil || n != 1 {
		t.Errorf("%d left, %v", n, err)
	}
	if _, err := f.Prune(t.Context(), Filters{"x": {"y"}}, nil); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("%v", err)
	}
}

func TestANameMovesToTheNewImage(t *testing.T) {
	f := newFixture(t)
	first := build(t, greg.Config{}, []tarFile{{"a", "1"}})
	second := build(t, greg.Config{}, []tarFile{{"a", "2"}})
	f.mustLoad(t, archiveOf(t, map[string]greg.Image{"web": first}))
	said := f.mustLoad(t, archiveOf(t, map[string]greg.Image{"web": second}))
	if want := "The image web:latest already exists, renaming the old one with ID " + idOf(t, first).String() + " to empty string\nLoaded image: web:latest\n"; said != want {
		t.Errorf("said %q", said)
	}
	if err := f.Tag(t.Context(), "web", "sha256", "x"); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("an ambiguous name: %v", err)
	}
	if err := f.Tag(t.Context(), "web", "a@"+idOf(t, first).String(), ""); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a digest as name: %v", err)
	}
}
