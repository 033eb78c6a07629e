package image

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// damage is what is done to a data root with two images, "hit" and "spared", of
// two layers each.
type damage struct {
	do      func(d *damaged) error
	gone    bool   // the image is not listed any more; its layers are found
	listed  string // part of the label that says what is wrong; "": nothing is seen without a check
	finding string // part of what the check says
	healed  bool   // repair alone mends it
}

type damaged struct {
	*fixture
	t         *testing.T
	id, chain string
	dir       string // of its uppermost layer
}

// sql changes the database as another program does, without foreign keys.
func (d *damaged) sql(statement string, args ...any) error {
	d.t.Helper()
	other, err := sql.Open("sqlite3", filepath.Join(d.root, "engined.db")+"?_foreign_keys=off&_busy_timeout=5000")
	if err != nil {
		return err
	}
	defer other.Close()
	result, err := other.Exec(statement, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		d.t.Errorf("%s: changed nothing (%v)", statement, err)
	}
	return nil
}

var damages = map[string]damage{
	"configuration changed": {listed: "digest of its configuration", finding: "digest of its configuration",
		do: func(d *damaged) error {
			return d.sql(`UPDATE images SET config = CAST(replace(CAST(config AS TEXT), 'linux', 'minix') AS BLOB) WHERE id = ?`, d.id)
		}},
	"configuration cut": {listed: "digest of its configuration", finding: "digest of its configuration",
		do: func(d *damaged) error {
			return d.sql(`UPDATE images SET config = substr(config, 1, 50) WHERE id = ?`, d.id)
		}},
	"row names another layer": {listed: "its row names layer", finding: "its row names layer",
		do: func(d *damaged) error { return d.sql(`UPDATE images SET chain = 'sha256:0' WHERE id = ?`, d.id) }},
	"image's row deleted": {listed: "its configuration is missing", finding: "its configuration is missing",
		do: func(d *damaged) error { return d.sql(`DELETE FROM images WHERE id = ?`, d.id) }},
	"image's row and names deleted": {gone: true, finding: "only its layers are left", healed: true,
		do: func(d *damaged) error {
			if err := d.sql(`DELETE FROM image_names WHERE image = ?`, d.id); err != nil {
				return err
			}
			return d.sql(`DELETE FROM images WHERE id = ?`, d.id)
		}},
	"hold deleted": {finding: "does not hold its layers", healed: true,
		do: func(d *damaged) error {
			// A writable layer keeps the layers, as long as there is one.
			return d.sql(`DELETE FROM layer_holds WHERE owner = ?`, "image/"+d.id)
		}},
	"name of rubbish": {finding: "is no name of an image", healed: true,
		do: func(d *damaged) error {
			return d.sql(`INSERT INTO image_names (name, image) VALUES ('!!', ?)`, d.id)
		}},
	"manifest changed": {finding: "has another digest", healed: true,
		do: func(d *damaged) error {
			return d.sql(`INSERT INTO image_manifests (image, digest, media_type, raw) VALUES (?, ?, '', x'78')`, d.id, digest.FromString("y").String())
		}},
	"blob of rubbish": {finding: "it is no digest", healed: true,
		do: func(d *damaged) error {
			return d.sql(`INSERT INTO layer_blobs (diff, digest, size, media_type, level, repository, seen) VALUES ('x', 'y', 1, '', 0, 'z', 1)`)
		}},
	"layer's row deleted": {listed: "is not here", finding: "is not here",
		do: func(d *damaged) error { return d.sql(`DELETE FROM layers WHERE chain = ?`, d.chain) }},
	"layer below deleted": {listed: "is not here", finding: "is not here",
		do: func(d *damaged) error {
			return d.sql(`DELETE FROM layers WHERE chain = (SELECT parent FROM layers WHERE chain = ?)`, d.chain)
		}},
	"layers in a circle": {listed: "does not fit together", finding: "does not fit together",
		do: func(d *damaged) error {
			return d.sql(`UPDATE layers SET parent = ? WHERE chain = (SELECT parent FROM layers WHERE chain = ?)`, d.chain, d.chain)
		}},
	"layer is its own parent": {listed: "does not fit together", finding: "does not fit together",
		do: func(d *damaged) error { return d.sql(`UPDATE layers SET parent = chain WHERE chain = ?`, d.chain) }},
	"layer's digest changed": {listed: "does not fit together", finding: "does not fit together",
		do: func(d *damaged) error {
			return d.sql(`UPDATE layers SET diff = ? WHERE chain = ?`, digest.FromString("z").String(), d.chain)
		}},
	"layer's directory leads out": {listed: "names no directory", finding: "names no directory",
		do: func(d *damaged) error { return d.sql(`UPDATE layers SET dir = '../image' WHERE chain = ?`, d.chain) }},
	"layer's size changed": {finding: "its total size", healed: true,
		do: func(d *damaged) error { return d.sql(`UPDATE layers SET total = total + 5 WHERE chain = ?`, d.chain) }},
	"layer's directory removed": {listed: "its directory is missing", finding: "its directory is missing",
		do: func(d *damaged) error { return os.RemoveAll(d.dir) }},
	"file removed": {finding: "cannot be read as they were",
		do: func(d *damaged) error { return os.Remove(filepath.Join(d.dir, "diff/h")) }},
	"file cut": {finding: "cannot be read as they were",
		do: func(d *damaged) error { return os.Truncate(filepath.Join(d.dir, "diff/h"), 3) }},
	"a bit of a file": {finding: "cannot be read as they were",
		do: func(d *damaged) error { return flip(filepath.Join(d.dir, "diff/h"), 2) }},
	"metadata cut": {finding: "cannot be read as they were",
		do: func(d *damaged) error { return os.Truncate(filepath.Join(d.dir, "tar-split.json.gz"), 40) }},
	"a bit of the metadata": {finding: "cannot be read as they were",
		do: func(d *damaged) error { return flip(filepath.Join(d.dir, "tar-split.json.gz"), 30) }},
}

func flip(path string, at int) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	raw[at] ^= 4
	return os.WriteFile(path, raw, 0o600)
}

// findings runs both checks and returns what they say.
func (f *fixture) findings(t *testing.T, repair bool) string {
	t.Helper()
	var said []string
	for _, check := range []func(context.Context, bool) ([]store.Finding, error){f.layers.Check, f.Check} {
		found, err := check(t.Context(), repair)
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range found {
			if repair != (each.Repair != "") {
				t.Errorf("repair %v: %s", repair, each)
			}
			said = append(said, each.String())
		}
	}
	return strings.Join(said, "\n")
}

func (f *fixture) labels(t *testing.T) map[string]string {
	t.Helper()
	list, err := f.List(t.Context(), ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{}
	for _, image := range list {
		for _, tag := range image.RepoTags {
			labels[tag] = image.Labels[damagedLabel]
		}
	}
	return labels
}

// Whatever is damaged: a start works, the other image is whole, the damaged one
// is listed, a check finds it, and pulling or loading it again heals it.
func TestDamageIsQuarantinedFoundAndHealed(t *testing.T) {
	hit, spared := layered(t, "hit below", "hit top"), layered(t, "spared below", "spared top")
	for name, test := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			f := openFixture(t, root)
			f.mustLoad(t, archiveOf(t, map[string]greg.Image{"hit:1": hit, "spared:1": spared}))
			if said := f.findings(t, false); said != "" {
				t.Fatal("before any damage:", said)
			}
			found, err := f.find(t.Context(), "hit:1")
			if err != nil {
				t.Fatal(err)
			}
			inspected, err := f.Inspect(t.Context(), "hit:1")
			if err != nil {
				t.Fatal(err)
			}
			d := &damaged{f, t, found.id.String(), found.chain.String(), filepath.Dir(inspected.GraphDriver.Data["UpperDir"])}
			if name == "hold deleted" {
				if err := f.layers.Create(t.Context(), "keeper", found.chain, layer.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := test.do(d); err != nil {
				t.Fatal(err)
			}
			again := openFixture(t, root)
			test.check(t, again)
			again.mustLoad(t, archiveOf(t, map[string]greg.Image{"hit:1": hit}))
			if said := again.findings(t, false); said != "" {
				t.Error("after loading it again:", said)
			}
			if _, err := again.Resolve(t.Context(), "hit:1"); err != nil {
				t.Error(err)
			}
			third := openFixture(t, root)
			if labels := third.labels(t); labels["hit:1"] != "" || len(labels) != 2 {
				t.Error("after one more start:", labels)
			}
		})
	}
}

func (test *damage) check(t *testing.T, f *fixture) {
	t.Helper()
	labels := f.labels(t)
	if label, listed := labels["hit:1"]; listed == test.gone || !strings.Contains(label, test.listed) || label != "" && test.listed == "" {
		t.Errorf("listed as %v", labels)
	}
	if label, listed := labels["spared:1"]; !listed || label != "" {
		t.Errorf("listed as %v", labels)
	}
	if _, err := f.Resolve(t.Context(), "hit:1"); test.listed != "" && errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("resolving it: %v", err)
	}
	if said := f.findings(t, false); !strings.Contains(said, test.finding) {
		t.Errorf("found %q, want %q", said, test.finding)
	}
	if said := f.findings(t, true); !strings.Contains(said, test.finding) {
		t.Errorf("repairing found %q", said)
	}
	said := f.findings(t, false)
	if healed := said == ""; healed != test.healed {
		t.Errorf("after the repair: %q", said)
	}
	if label := f.labels(t)["hit:1"]; !test.gone && (label == "") != test.healed {
		t.Errorf("after the repair it is listed with %q", label)
	}
}

func TestDamagedImagesCanBeRemoved(t *testing.T) {
	for _, name := range []string{"configuration changed", "image's row deleted", "layers in a circle", "layer's directory leads out", "layer's row deleted"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			f := openFixture(t, root)
			f.mustLoad(t, archiveOf(t, map[string]greg.Image{"hit:1": layered(t, "hit below", "hit top")}))
			found, err := f.find(t.Context(), "hit:1")
			if err != nil {
				t.Fatal(err)
			}
			inspected, err := f.Inspect(t.Context(), "hit:1")
			if err != nil {
				t.Fatal(err)
			}
			if err := damages[name].do(&damaged{f, t, found.id.String(), found.chain.String(), filepath.Dir(inspected.GraphDriver.Data["UpperDir"])}); err != nil {
				t.Fatal(err)
			}
			again := openFixture(t, root)
			if _, err := again.Remove(t.Context(), "hit:1", RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(root, "image")); err != nil {
				t.Errorf("more than the layer was removed: %v", err)
			}
		})
	}
}
