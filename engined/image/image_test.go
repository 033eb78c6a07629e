package image

import (
	"archive/tar"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// fixture is a store under a root of its own, and all that happened in it.
type fixture struct {
	*Store
	db     *store.DB
	layers *layer.Store
	log    *events.Log
	root   string
}

func newFixture(t testing.TB) *fixture { return openFixture(t, t.TempDir()) }

func openFixture(t testing.TB, root string) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	db, err := store.Open(t.Context(), filepath.Join(root, "engined.db"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{db: db, root: root, log: events.New()}
	if f.layers, err = layer.Open(t.Context(), db, root, layer.Options{Driver: "overlay2"}); err != nil {
		t.Fatal(err)
	}
	if f.Store, err = Open(t.Context(), db, f.layers, f.log, root); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
		if err != nil {
			t.Error(err)
		}
		for _, m := range mounts {
			_ = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
		}
		if err := f.layers.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// told returns the actions of all events so far.
func (f *fixture) told(t testing.TB) []string {
	t.Helper()
	channel, err := f.log.Subscribe(t.Context(), time.Unix(1, 0), time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for m := range channel {
		if m.Type == apievents.ImageEventType {
			actions = append(actions, string(m.Action))
		}
	}
	return actions
}

func (f *fixture) mustLoad(t testing.TB, archive []byte) string {
	t.Helper()
	var said strings.Builder
	err := f.Load(t.Context(), bytes.NewReader(archive), LoadOptions{Quiet: true}, func(m jsonstream.Message) { said.WriteString(m.Stream) })
	if err != nil {
		t.Fatal(err)
	}
	return said.String()
}

// tarFile is a file of a tar made by a test.
type tarFile struct{ name, body string }

func tarOf(t testing.TB, files ...tarFile) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o755, Size: int64(len(f.body))}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// build makes an image out of layers of files.
func build(t testing.TB, config greg.Config, layers ...[]tarFile) greg.Image {
	t.Helper()
	image := empty.Image
	for i, files := range layers {
		raw := tarOf(t, files...)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
		if err != nil {
			t.Fatal(err)
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: l, History: greg.History{CreatedBy: fmt.Sprintf("step %d", i),
			Created: greg.Time{Time: time.Unix(int64(1000+i), 0)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config, file.Created = "linux", "amd64", config, greg.Time{Time: time.Unix(2000, 0)}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		t.Fatal(err)
	}
	return image
}

func archiveOf(t testing.TB, images map[string]greg.Image) []byte {
	t.Helper()
	refs := map[gname.Reference]greg.Image{}
	for tag, image := range images {
		parsed, err := gname.NewTag(tag)
		if err != nil {
			t.Fatal(err)
		}
		refs[parsed] = image
	}
	var out bytes.Buffer
	if err := tarball.MultiRefWrite(refs, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func idOf(t testing.TB, image greg.Image) digest.Digest {
	t.Helper()
	hash, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return digest.Digest(hash.String())
}

func TestLoadedImagesAreWhatTheArchiveSays(t *testing.T) {
	f := newFixture(t)
	image := build(t, greg.Config{Cmd: []string{"sh"}, Env: []string{"A=b"}, Labels: map[string]string{"tier": "a"}},
		[]tarFile{{"etc/motd", "old"}, {"etc/gone", "x"}}, []tarFile{{"etc/motd", "newer"}, {"etc/.wh.gone", ""}})
	archive := archiveOf(t, map[string]greg.Image{"web:1": image})
	if said := f.mustLoad(t, archive); said != "Loaded image: web:1\n" {
		t.Errorf("said %q", said)
	}
	got, err := f.Resolve(t.Context(), "web:1")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != idOf(t, image) || !reflect.DeepEqual(got.Config.Config.Cmd, []string{"sh"}) || got.Size != int64(len("old")+len("x")+len("newer")) ||
		!reflect.DeepEqual(got.References, []string{"web:1"}) || !got.Created.Equal(time.Unix(2000, 0)) {
		t.Errorf("%+v", got)
	}
	if err := f.layers.Create(t.Context(), "c1", got.Chain, layer.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	root, err := f.layers.Mount(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if motd, _ := os.ReadFile(filepath.Join(root, "etc/motd")); string(motd) != "newer" {
		t.Errorf("motd %q", motd)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/gone")); err == nil {
		t.Error("a deleted file is there")
	}
	if told := f.told(t); !reflect.DeepEqual(told, []string{"load"}) {
		t.Errorf("events %v", told)
	}
	if left, _ := filepath.Glob(filepath.Join(f.root, "image", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestProgressIsReportedUnlessQuiet(t *testing.T) {
	f := newFixture(t)
	image, err := random.Image(2<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	err = f.Load(t.Context(), bytes.NewReader(archiveOf(t, map[string]greg.Image{"r": image})), LoadOptions{}, func(m jsonstream.Message) {
		if m.Progress != nil && m.Status == "Loading layer" && len(m.ID) == 12 {
			lines++
		}
	})
	if err != nil || lines < 6 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

func TestSavedImagesLoadElsewhereWithTheSameId(t *testing.T) {
	from, to := newFixture(t), newFixture(t)
	a := build(t, greg.Config{}, []tarFile{{"a", "1"}}, []tarFile{{".wh.a", ""}, {"b", strings.Repeat("b", 100_000)}})
	b := build(t, greg.Config{User: "1"}, []tarFile{{"a", "1"}})
	from.mustLoad(t, archiveOf(t, map[string]greg.Image{"repo:a": a, "example.com/x/b:2": b}))
	if err := from.Tag(t.Context(), "repo:a", "repo", "second"); err != nil {
		t.Fatal(err)
	}
	saving, err := from.Save(t.Context(), []string{"repo", idOf(t, b).String()})
	if err != nil {
		t.Fatal(err)
	}
	defer saving.Close(context.Background())
	var archive bytes.Buffer
	if err := saving.Write(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	said := to.mustLoad(t, archive.Bytes())
	if want := "Loaded image: repo:a\nLoaded image: repo:second\nLoaded image ID: " + idOf(t, b).String() + "\n"; said != want {
		t.Errorf("said %q, want %q", said, want)
	}
	for _, image := range []greg.Image{a, b} {
		if _, err := to.Resolve(t.Context(), idOf(t, image).String()); err != nil {
			t.Error(err)
		}
	}
	// Others read it, too.
	file := filepath.Join(t.TempDir(), "saved.tar")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tag, _ := gname.NewTag("repo:second")
	read, err := tarball.ImageFromPath(file, &tag)
	if err != nil || idOf(t, read) != idOf(t, a) {
		t.Errorf("go-containerregistry reads %v", err)
	}
}

// layoutTar packs a directory.
func layoutTar(t testing.TB, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAnOCILayoutLoadsTheImageForThePlatform(t *testing.T) {
	f := newFixture(t)
	amd := build(t, greg.Config{}, []tarFile{{"arch", "amd64"}})
	arm := build(t, greg.Config{}, []tarFile{{"arch", "arm64"}})
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: arm, Descriptor: greg.Descriptor{Platform: &greg.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: amd, Descriptor: greg.Descriptor{Platform: &greg.Platform{OS: "linux", Architecture: "amd64"}}})
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "example.com/multi:1"})); err != nil {
		t.Fatal(err)
	}
	archive := layoutTar(t, dir)
	f.mustLoad(t, archive)
	if got, err := f.Resolve(t.Context(), "example.com/multi:1"); err != nil || got.ID != idOf(t, amd) {
		t.Errorf("%v, %v", got.ID, err)
	}
	wanted := LoadOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}}
	if err := f.Load(t.Context(), bytes.NewReader(archive), wanted, func(jsonstream.Message) {}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Resolve(t.Context(), "example.com/multi:1"); err != nil || got.ID != idOf(t, arm) {
		t.Errorf("%v, %v", got.ID, err)
	}
	wanted.Platform.Architecture = "s390x"
	if err := f.Load(t.Context(), bytes.NewReader(archive), wanted, func(jsonstream.Message) {}); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("a platform that is not there: %v", err)
	}

	// A blob that is not what its name says.
	entries, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	for _, entry := range entries {
		raw, _ := os.ReadFile(entry)
		if err := os.WriteFile(entry, append(raw, ' '), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Load(t.Context(), bytes.NewReader(layoutTar(t, dir)), LoadOptions{}, func(jsonstream.Message) {}); err == nil || !strings.Contains(err.Error(), "does not match its digest") {
		t.Errorf("changed blobs: %v", err)
	}
}

func TestBadArchivesAreRefused(t *testing.T) {
	f := newFixture(t)
	config := func(text string) tarFile { return tarFile{"c.json", text} }
	layers := digest.FromBytes(tarOf(t, tarFile{"a", "1"})).String()
	good := config(`{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + layers + `"]}}`)
	for name, test := range map[string]struct {
		want  string
		files []tarFile
	}{
		"nothing":            {"neither", nil},
		"before Docker 1.10": {"before Docker 1.10", []tarFile{{"repositories", "{}"}, {"abc/VERSION", "1.0"}}},
		"broken manifest":    {"manifest.json", []tarFile{{"manifest.json", "[{"}}},
		"no image":           {"no image", []tarFile{{"manifest.json", "[]"}}},
		"no config":          {"no file", []tarFile{{"manifest.json", `[{"Config":"../../etc/passwd"}]`}}},
		"broken config":      {"image configuration", []tarFile{{"manifest.json", `[{"Config":"c.json"}]`}, config("no")}},
		"no rootfs":          {"rootfs.type", []tarFile{{"manifest.json", `[{"Config":"c.json"}]`}, config("{}")}},
		"bad diff id":        {"diff_ids[0]", []tarFile{{"manifest.json", `[{"Config":"c.json"}]`}, config(`{"rootfs":{"type":"layers","diff_ids":["x"]}}`)}},
		"layers missing":     {"length mismatch", []tarFile{{"manifest.json", `[{"Config":"c.json"}]`}, good}},
		"layer file missing": {"no file", []tarFile{{"manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`}, good}},
		"other layer":        {"don't match", []tarFile{{"manifest.json", `[{"Config":"c.json","Layers":["l.tar"]}]`}, good, {"l.tar", string(tarOf(t, tarFile{"b", "2"}))}}},
		"bad tag":            {"invalid tag", []tarFile{{"manifest.json", `[{"Config":"c.json","RepoTags":["A B"]}]`}, good}},
		"windows":            {"windows", []tarFile{{"manifest.json", `[{"Config":"c.json"}]`}, config(`{"os":"windows","rootfs":{"type":"layers"}}`)}},
		"empty index":        {"no image", []tarFile{{"index.json", "{}"}}},
		"unknown media type": {"not supported", []tarFile{{"index.json", `{"manifests":[{"mediaType":"text/plain"}]}`}}},
		"no such manifest":   {"digest", []tarFile{{"index.json", `{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"sha256:../../x"}]}`}}},
	} {
		err := f.Load(t.Context(), bytes.NewReader(tarOf(t, test.files...)), LoadOptions{}, func(jsonstream.Message) {})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
		if kind := errdefs.KindOf(err); kind != errdefs.InvalidArgument && kind != errdefs.NotImplemented && kind != errdefs.NotFound {
			t.Errorf("%s: kind %q", name, kind)
		}
	}
	if images, err := f.List(t.Context(), ListOptions{All: true}); err != nil || len(images) != 0 {
		t.Errorf("%v, %v", images, err)
	}
	if all, err := f.layers.All(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("layers left: %v, %v", all, err)
	}
}

func (f *fixture) mustImport(t testing.TB, repository, body string) digest.Digest {
	t.Helper()
	id, err := f.Import(t.Context(), ImportRequest{Repository: repository}, bytes.NewReader(tarOf(t, tarFile{"f", body})))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestImportMakesAnImageOfATree(t *testing.T) {
	f := newFixture(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("no busybox here")
	}
	id, err := f.Import(t.Context(), ImportRequest{Repository: "busybox", Tag: "1", Message: "from a file",
		Changes: []string{`CMD ["sh"]`, "ENV A=b"}, Platform: &ocispec.Platform{Architecture: "arm64", Variant: "v8"}},
		bytes.NewReader(tarOf(t, tarFile{"bin/busybox", string(busybox)})))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Inspect(t.Context(), "busybox:1")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != id.String() || got.Comment != "from a file" || got.Architecture != "arm64" || got.Variant != "v8" || got.Os != "linux" ||
		!reflect.DeepEqual(got.Config.Cmd, []string{"sh"}) || len(got.RootFS.Layers) != 1 || got.Size != int64(len(busybox)) ||
		got.GraphDriver.Name != "overlay2" || got.GraphDriver.Data["UpperDir"] == "" || got.Metadata.LastTagTime.IsZero() {
		t.Errorf("%+v", got)
	}
	history, err := f.History(t.Context(), id.String()[:15])
	if err != nil || len(history) != 1 || history[0].ID != id.String() || history[0].Size != got.Size || !reflect.DeepEqual(history[0].Tags, []string{"busybox:1"}) {
		t.Errorf("%+v, %v", history, err)
	}
	if told := f.told(t); !reflect.DeepEqual(told, []string{"tag", "import"}) {
		t.Errorf("events %v", told)
	}
	for _, bad := range []ImportRequest{{Repository: "UPPER"}, {Repository: "a", Tag: "b c"}, {Changes: []string{"FROM x"}}, {Platform: &ocispec.Platform{OS: "windows"}}} {
		if _, err := f.Import(t.Context(), bad, bytes.NewReader(tarOf(t))); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestResolvingFollowsDocker(t *testing.T) {
	f := newFixture(t)
	id := f.mustImport(t, "busybox", "1")
	hex := id.Encoded()
	for _, ref := range []string{"busybox", "busybox:latest", "docker.io/library/busybox", "library/busybox:latest", hex, hex[:4], "sha256:" + hex, "sha256:" + hex[:7]} {
		if got, err := f.Resolve(t.Context(), ref); err != nil || got.ID != id {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
	for ref, subject := range map[string]string{"nope": "nope:latest", "nope:1": "nope:1", "example.com/a/b": "example.com/a/b:latest",
		strings.Repeat("0", 64): "sha256:" + strings.Repeat("0", 64), "busybox@sha256:" + strings.Repeat("0", 64): "busybox@sha256:" + strings.Repeat("0", 64)} {
		_, err := f.Resolve(t.Context(), ref)
		code, got := errdefs.CodeAndSubject(err)
		if errdefs.KindOf(err) != errdefs.NotFound || code != errdefs.NoSuchImage || got != subject || err.Error() != "No such image: "+subject {
			t.Errorf("%s: %v (%s %s)", ref, err, code, got)
		}
	}
	for _, ref := range []string{"", "A", "a b", "a:b c", ":x", "a@sha256:1"} {
		if _, err := f.Resolve(t.Context(), ref); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%q: %v", ref, err)
		}
	}
	for i := range 40 { // two of 41 ids begin with the same digit of sixteen
		f.mustImport(t, "", fmt.Sprint(i))
	}
	ambiguous := 0
	for _, prefix := range "0123456789abcdef" {
		if _, err := f.Resolve(t.Context(), "sha256:"+string(prefix)); errdefs.CodeOf(err) == errdefs.AmbiguousPrefix {
			ambiguous++
		}
	}
	if ambiguous == 0 {
		t.Error("no prefix was ambiguous")
	}
}

func summaries(t testing.TB, f *fixture, opts ListOptions) string {
	t.Helper()
	list, err := f.List(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range list {
		lines = append(lines, strings.Join(s.RepoTags, ","))
	}
	return strings.Join(lines, ";")
}

func TestListFilters(t *testing.T) {
	f := newFixture(t)
	labelled := build(t, greg.Config{Labels: map[string]string{"tier": "a", "x": ""}}, []tarFile{{"a", "1"}})
	f.mustLoad(t, archiveOf(t, map[string]greg.Image{"old:1": labelled, "example.com/team/old:2": labelled})) // made in 1970
	f.mustImport(t, "new", "1")
	f.mustImport(t, "", "nameless")
	newest := summaries(t, f, ListOptions{})
	if newest != ";new:latest;old:1,example.com/team/old:2" {
		t.Errorf("list %q", newest)
	}
	for filter, want := range map[string]string{
		`{"dangling":["true"]}`:                   "",
		`{"dangling":["false"]}`:                  "new:latest;old:1,example.com/team/old:2",
		`{"label":["tier"]}`:                      "old:1,example.com/team/old:2",
		`{"label":["tier=a","x"]}`:                "old:1,example.com/team/old:2",
		`{"label":["tier=a","y"]}`:                "",
		`{"label!":["tier"]}`:                     ";new:latest",
		`{"reference":["old"]}`:                   "old:1",
		`{"reference":["*:lat*"]}`:                "new:latest",
		`{"reference":["new","example.com/*/*"]}`: "new:latest;example.com/team/old:2",
		`{"before":["new"]}`:                      "old:1,example.com/team/old:2",
		`{"since":["old:1"]}`:                     ";new:latest",
		`{"until":["24h"]}`:                       "old:1,example.com/team/old:2",
	} {
		var filters Filters
		if err := json.Unmarshal([]byte(filter), &filters); err != nil {
			t.Fatal(err)
		}
		if got := summaries(t, f, ListOptions{Filters: filters}); got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	if list, _ := f.List(t.Context(), ListOptions{Filters: Filters{"dangling": {"true"}}}); len(list) != 1 || list[0].RepoTags == nil {
		t.Errorf("dangling: %+v", list)
	}
	for _, bad := range []Filters{{"nonsense": {"1"}}, {"dangling": {"maybe"}}, {"until": {"x"}}, {"reference": {"["}}} {
		if _, err := f.List(t.Context(), ListOptions{Filters: bad}); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := f.List(t.Context(), ListOptions{Filters: Filters{"before": {"nope"}}}); errdefs.CodeOf(err) != errdefs.NoSuchImage {
		t.Errorf("before nothing: %v", err)
	}
	list, err := f.List(t.Context(), ListOptions{SharedSize: true})
	if err != nil || list[0].SharedSize != 0 || list[0].Containers != -1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestDamageIsListedAndNeverFatal(t *testing.T) {
	root := t.TempDir()
	f := openFixture(t, root)
	broken, sound := f.mustImport(t, "broken", "1"), f.mustImport(t, "sound", "2")
	lost := f.mustImport(t, "lost", "3")
	if err := f.db.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE images SET config = CAST(replace(CAST(config AS TEXT), 'linux', 'minix') AS BLOB) WHERE id = ?`, broken.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	image, err := f.Inspect(t.Context(), lost.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Dir(image.GraphDriver.Data["UpperDir"])); err != nil {
		t.Fatal(err)
	}
	again := openFixture(t, root)
	list, err := again.List(t.Context(), ListOptions{})
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, s := range list {
		if damaged := s.Labels[damagedLabel] != ""; damaged != (s.ID != sound.String()) {
			t.Errorf("%s: labels %v", s.RepoTags, s.Labels)
		}
	}
	for _, ref := range []string{"broken", "lost"} {
		if _, err := again.Resolve(t.Context(), ref); errdefs.KindOf(err) != errdefs.DataLoss {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := again.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
			t.Errorf("removing %s: %v", ref, err)
		}
	}
}
