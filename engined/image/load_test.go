package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/proto/errdefs"
)

// packed is an archive of these files; a link's content begins with ->.
func packed(t testing.TB, files [][2]string) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, file := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: file[0], Mode: 0o644, Size: int64(len(file[1]))}
		if target, isLink := strings.CutPrefix(file[1], "->"); isLink {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, target, 0
		}
		if err := writer.WriteHeader(header); err != nil {
			t.Skip(err) // a name that no tar can hold
		}
		if header.Size > 0 {
			_, _ = writer.Write([]byte(file[1]))
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// layoutOf puts the parts of an archive together. Each is named in those above
// it by a word for its digest, since nobody guesses one: NESTED, IMAGE, CONFIG.
func layoutOf(manifest, index, nested, image, config string) [][2]string {
	files := [][2]string{{"link", "->config.json"}, {"config.json", config}}
	words := []string{}
	add := func(word, content string) {
		content = strings.NewReplacer(words...).Replace(content)
		sum := digest.FromString(content)
		files = append(files, [2]string{"blobs/sha256/" + sum.Encoded(), content})
		words = append(words, word, sum.String())
	}
	add("CONFIG", config)
	add("IMAGE", image)
	add("NESTED", nested)
	for name, content := range map[string]string{"manifest.json": manifest, "index.json": index} {
		if content != "" {
			files = append(files, [2]string{name, strings.NewReplacer(words...).Replace(content)})
		}
	}
	return files
}

const (
	anIndex  = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"NESTED","size":1},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"IMAGE","annotations":{"org.opencontainers.image.ref.name":"a/b:c","io.containerd.image.name":"host:1/a:b"}}]}`
	aNested  = `{"manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"IMAGE","platform":{"os":"linux","architecture":"amd64"}},{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"NESTED","platform":{"os":"unknown"}}]}`
	anImage  = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"CONFIG","size":2}]}`
	someConf = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"]}}`
)

// FuzzArchive lets the lists in an archive be anything. Whatever is accepted is
// an image whose parts are checked; whatever is not has a kind that blames the
// archive, not the engine.
func FuzzArchive(f *testing.F) {
	f.Add(`[{"Config":"config.json","RepoTags":["a:b"],"Layers":["link"]}]`, "", "", "", someConf)
	f.Add(`[{"Config":"blobs/sha256/../../link","RepoTags":null,"Parent":"sha256:x"},{"Config":"../config.json"}]`, anIndex, "", "", someConf)
	f.Add("", anIndex, aNested, anImage, someConf)
	f.Add("", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"IMAGE"}]}`, "", anImage, someConf)
	f.Fuzz(func(t *testing.T, manifest, index, nested, image, config string) {
		archive, err := spool(t.Context(), t.TempDir(), packed(t, layoutOf(manifest, index, nested, image, config)))
		if err != nil {
			t.Fatalf("spooling: %v", err) // it is a good tar
		}
		for _, platform := range []*ocispec.Platform{nil, {OS: "linux", Architecture: "arm", Variant: "v7"}} {
			found, err := archive.images(platform)
			if err == nil && len(found) == 0 {
				t.Error("neither images nor an error")
			}
			switch errdefs.KindOf(err) {
			case "", errdefs.InvalidArgument, errdefs.NotFound, errdefs.NotImplemented:
			default:
				t.Errorf("kind %q: %v", errdefs.KindOf(err), err)
			}
			for _, each := range found {
				checkSource(t, each)
			}
		}
	})
}

func checkSource(t *testing.T, from source) {
	t.Helper()
	again, err := parseConfig(from.raw)
	if err != nil || again.chain != from.config.chain {
		t.Errorf("configuration %q: %v", from.raw, err)
	}
	if from.parent != "" && from.parent.Validate() != nil {
		t.Errorf("parent %q", from.parent)
	}
	if len(from.names) != len(from.tags) {
		t.Errorf("tags %q became names %v", from.tags, from.names)
	}
	for _, n := range from.names {
		if again, err := parseTag(n.familiar(), ""); err != nil || again != n || n.isDigest() {
			t.Errorf("name %q: %q, %v", n, again, err)
		}
	}
	for _, each := range from.layers {
		if each.digest != "" && (each.digest.Validate() != nil || each.file != blobFile(each.digest)) {
			t.Errorf("layer %+v", each)
		}
	}
}

// What is short to write must not be long to read: lists that name the same
// file again and again, and indexes of indexes.
func TestListsThatMultiplyAreRefused(t *testing.T) {
	large := `{"rootfs":{"type":"layers"},"author":"` + strings.Repeat("x", 1<<20) + `"}`
	many := strings.Repeat(`{"Config":"config.json"},`, 1000)
	entry := `{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q},`
	files := [][2]string{}
	below := digest.FromString("none")
	for range maxIndexDepth {
		content := `{"manifests":[` + strings.Repeat(fmt.Sprintf(entry, below), 1000) + `{}]}`
		below = digest.FromString(content)
		files = append(files, [2]string{blobFile(below), content})
	}
	files = append(files, [2]string{"index.json", fmt.Sprintf(`{"manifests":[%s{}]}`, strings.Repeat(fmt.Sprintf(entry, below), 1000))})
	for what, files := range map[string][][2]string{
		"one configuration for many images": {{"manifest.json", "[" + many + `{"Config":"config.json"}]`}, {"config.json", large}},
		"indexes of indexes":                files,
	} {
		archive, err := spool(t.Context(), t.TempDir(), packed(t, files))
		if err != nil {
			t.Fatal(err)
		}
		archive.taken = maxRead - 8<<20 // the first of it, to save time
		if _, err = archive.images(nil); errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "at most 64 MiB") {
			t.Errorf("%s: %v", what, err)
		}
	}
	diff := `"` + digest.FromString("x").String() + `"`
	if _, err := parseConfig([]byte(`{"rootfs":{"type":"layers","diff_ids":[` + strings.Repeat(diff+",", maxLayers) + diff + `]}}`)); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a layer too many: %v", err)
	}
}

// A megabyte of names packs to a kilobyte.
func TestLongNamesInArchivesAreRefused(t *testing.T) {
	files := [][2]string{}
	for i := range 17 {
		files = append(files, [2]string{fmt.Sprint(i, strings.Repeat("x", 1000<<10)), "->a"})
	}
	if _, err := spool(t.Context(), t.TempDir(), packed(t, files)); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("got %.1000v", err)
	}
}

// A file that two layers are read from goes with the second.
func TestSpooledLayersGoWhenTheyWereRead(t *testing.T) {
	archive, err := spool(t.Context(), t.TempDir(), packed(t, [][2]string{{"a", "shared"}, {"b", "->a"}, {"c", "other"}}))
	if err != nil {
		t.Fatal(err)
	}
	archive.expect([]source{{layers: []blob{{file: "a"}, {file: "c"}}}, {layers: []blob{{file: "b"}, {file: "missing"}}}})
	for _, step := range []struct {
		drop string
		left int
	}{{"a", 2}, {"c", 1}, {"missing", 1}, {"b", 0}} {
		if err := archive.drop(step.drop); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(archive.dir); err != nil || len(left) != step.left {
			t.Errorf("after %s: %v, %v, want %d", step.drop, left, err, step.left)
		}
	}
}
