package faults

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	_ "github.com/mattn/go-sqlite3" // looks at the database as an operator would
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
)

// imageVerb is something that is done with images and may be killed half way.
type imageVerb struct {
	name    string
	prepare func(*imageWork) error // by an engined that nobody kills
	do      func(*imageWork) error
}

var imageVerbs = []imageVerb{
	{"pull", none, func(w *imageWork) error { return w.pull("web:1") }},
	{"push", func(w *imageWork) error { return w.own() }, func(w *imageWork) error { return w.push("own:1") }},
	{"load", none, func(w *imageWork) error { return w.load() }},
	{"import", none, func(w *imageWork) error { return w.own() }},
	{"tag", func(w *imageWork) error { return w.pull("web:1") }, func(w *imageWork) error { return w.tag("web:1", "other:1") }},
	{"remove", func(w *imageWork) error { return w.pull("web:1") }, func(w *imageWork) error { return w.remove("web:1") }},
	{"commit", func(w *imageWork) error { return w.container() }, func(w *imageWork) error { return w.commit() }},
	{"prune", func(w *imageWork) error { return w.pull("web:1") }, func(w *imageWork) error { return w.prune() }},
}

func none(*imageWork) error { return nil }

// everywhere is for the long run: each verb is killed also at points that an
// earlier one was killed at.
var everywhere = os.Getenv("ENGINED_FAULTS") == "all"

// TestImagesSurviveEveryFailPoint kills engined at every point that the verbs
// pass. Afterwards it starts, every image is whole or absent, the verb works,
// and when all images are removed nothing is left of them.
func TestImagesSurviveEveryFailPoint(t *testing.T) {
	harness.NeedRoot(t)
	t.Setenv("ENGINED_BIN", binariesWithFailPoints(t))
	w := newImageWork(t)
	killed := map[string]bool{}
	for _, verb := range imageVerbs {
		t.Run(verb.name, func(t *testing.T) {
			w.t = t
			points := w.pointsOf(verb)
			if len(points) == 0 {
				t.Fatal("it passes no fail point")
			}
			for _, point := range points {
				if killed[point] && !everywhere {
					continue
				}
				killed[point] = true
				t.Run(point, func(t *testing.T) {
					w.t = t
					w.killAt(verb, point)
				})
			}
		})
	}
	w.t = t
}

// binariesWithFailPoints is a directory like bin/ with an engined that can be
// told to die.
func binariesWithFailPoints(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"supervisor", "shim", "ocirun"} {
		if err := os.Symlink(harness.Binary(name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-tags", "netgo osusergo failpoints", "-o", filepath.Join(dir, "engined"), "./cmd/engined")
	build.Dir = harness.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// imageWork is an instance, a registry, and what is done with them.
type imageWork struct {
	t        *testing.T
	stack    *harness.Stack
	registry *harness.Registry
	client   *client.Client
	archive  []byte
	trace    string
}

func newImageWork(t *testing.T) *imageWork {
	t.Helper()
	w := &imageWork{t: t, registry: harness.NewRegistry(t), trace: filepath.Join(t.TempDir(), "trace")}
	base := images.Layer(t, 1, 300<<10)
	images.Put(t, w.registry.Host+"/web:1", images.Image(t, "web", base, images.Layer(t, 2, 200<<10), images.Layer(t, 3, 100<<10)))
	w.archive = images.Archive(t, "loaded:1", images.Image(t, "loaded", base, images.Layer(t, 4, 100<<10)))
	w.stack = harness.New(t, harness.Options{NoImage: true, DataRoot: inMemory(t)})
	w.client = w.stack.Client(t)
	return w
}

// inMemory is a directory on a file system in memory: each image is synced, and
// on a disk that waits for what all others write.
func inMemory(t *testing.T) string {
	t.Helper()
	dir := harness.TempDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting the data root: %v", err)
		}
	})
	return dir
}

func (w *imageWork) name(image string) string { return w.registry.Host + "/" + image }

func (w *imageWork) pull(image string) error {
	stream, err := w.client.ImagePull(context.Background(), w.name(image), client.ImagePullOptions{})
	if err != nil {
		return err
	}
	return stream.Wait(context.Background())
}

func (w *imageWork) push(image string) error {
	stream, err := w.client.ImagePush(context.Background(), w.name(image), client.ImagePushOptions{RegistryAuth: "e30="})
	if err != nil {
		return err
	}
	return stream.Wait(context.Background())
}

func (w *imageWork) load() error {
	stream, err := w.client.ImageLoad(context.Background(), bytes.NewReader(w.archive))
	if err != nil {
		return err
	}
	return drain(stream)
}

// own imports an image that no registry has.
func (w *imageWork) own() error {
	source := client.ImageImportSource{Source: bytes.NewReader(images.Tar(w.t, uint64(time.Now().UnixNano()), 50<<10)), SourceName: "-"}
	stream, err := w.client.ImageImport(context.Background(), source, w.name("own:1"), client.ImageImportOptions{})
	if err != nil {
		return err
	}
	return drain(stream)
}

// drain reads an answer to its end, which is where it says what failed.
func drain(stream io.ReadCloser) error {
	defer stream.Close()
	said, err := io.ReadAll(stream)
	if err == nil && bytes.Contains(said, []byte(`"error"`)) {
		err = fmt.Errorf("%s", said)
	}
	return err
}

func (w *imageWork) tag(image, as string) error {
	_, err := w.client.ImageTag(context.Background(), client.ImageTagOptions{Source: w.name(image), Target: w.name(as)})
	return err
}

func (w *imageWork) remove(image string) error {
	_, err := w.client.ImageRemove(context.Background(), w.name(image), client.ImageRemoveOptions{PruneChildren: true})
	return err
}

func (w *imageWork) prune() error {
	_, err := w.client.ImagePrune(context.Background(), client.ImagePruneOptions{Filters: make(client.Filters).Add("dangling", "false")})
	return err
}

// container makes a container of an image.
func (w *imageWork) container() error {
	if err := w.pull("web:1"); err != nil {
		return err
	}
	_, err := w.client.ContainerCreate(context.Background(), client.ContainerCreateOptions{Name: "committed", Image: w.name("web:1")})
	return err
}

func (w *imageWork) commit() error {
	_, err := w.client.ContainerCommit(context.Background(), "committed", client.ContainerCommitOptions{Reference: w.name("committed:1")})
	return err
}

// pointsOf does the verb whole and returns the points it passes.
func (w *imageWork) pointsOf(verb imageVerb) (points []string) {
	w.t.Helper()
	w.must(verb.prepare(w))
	w.restart("ENGINED_FAILPOINT_TRACE=" + w.trace)
	w.must(os.WriteFile(w.trace, nil, 0o600)) // without those of the start
	if err := verb.do(w); cerrdefs.IsNotImplemented(err) {
		w.clear()
		w.t.Skip(err)
	} else {
		w.must(err)
	}
	w.stack.Engined.Kill()
	for _, point := range w.passed() {
		if !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	w.stack.StartEngined()
	w.clear()
	return points
}

// passed are the points in the trace.
func (w *imageWork) passed() []string {
	w.t.Helper()
	said, err := os.ReadFile(w.trace)
	w.must(err)
	return strings.Fields(string(said))
}

func (w *imageWork) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// restart ends engined and starts it with a setting, which later starts do not
// have.
func (w *imageWork) restart(setting ...string) {
	w.t.Helper()
	w.must(w.stack.Engined.Stop())
	for _, each := range setting {
		name, value, _ := strings.Cut(each, "=")
		w.must(os.Setenv(name, value))
		defer os.Unsetenv(name)
	}
	w.stack.StartEngined()
}

func (w *imageWork) killAt(verb imageVerb, point string) {
	w.t.Helper()
	w.must(verb.prepare(w))
	before := w.count("images")
	if err := os.Remove(w.trace); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.t.Fatal(err)
	}
	w.restart("ENGINED_FAILPOINT="+point, "ENGINED_FAILPOINT_TRACE="+w.trace)
	done := verb.do(w)
	if !w.stack.Engined.Died(patient) {
		w.t.Fatalf("engined lives on; the verb said %v", done)
	}
	// Not at the end for sure: another layer may pass a point while it dies.
	if passed := w.passed(); !slices.Contains(passed, point) {
		w.t.Errorf("it died and had passed %v", passed)
	}
	w.stack.StartEngined()
	w.whole()
	if kept := w.count("images"); kept > before+1 || kept < before-1 {
		w.t.Errorf("%d images before, %d after", before, kept)
	}
	if left := w.count(`layer_holds WHERE owner LIKE 'work/%'`); left != 0 {
		w.t.Errorf("%d holds of calls that died", left)
	}
	if err := verb.do(w); err != nil && !(cerrdefs.IsNotFound(err) && w.count("images") < before) { // else it was removed already
		w.t.Errorf("again: %v", err)
	}
	w.whole()
	w.clear()
}

// whole requires that every image that is there is whole.
func (w *imageWork) whole() {
	w.t.Helper()
	list, err := w.client.ImageList(context.Background(), client.ImageListOptions{All: true})
	w.must(err)
	for _, image := range list.Items {
		if err := images.Whole(context.Background(), w.client, image.ID); err != nil {
			w.t.Error(err)
		}
	}
}

// count asks the database.
func (w *imageWork) count(from string) (n int) {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.stack.DataRoot(), "*.db"))
	if err != nil || len(found) != 1 {
		w.t.Fatalf("databases: %v, %v", found, err)
	}
	db, err := sql.Open("sqlite3", "file:"+found[0]+"?mode=ro")
	w.must(err)
	defer db.Close()
	w.must(db.QueryRow(`SELECT count(*) FROM ` + from).Scan(&n))
	return n
}

// clear removes all images and requires that nothing is left of them: rows,
// directories, mounts, spooled files.
func (w *imageWork) clear() {
	w.t.Helper()
	w.must(harness.RemoveAll(w.client))
	list, err := w.client.ImageList(context.Background(), client.ImageListOptions{All: true})
	w.must(err)
	for _, image := range list.Items {
		_, err := w.client.ImageRemove(context.Background(), image.ID, client.ImageRemoveOptions{Force: true, PruneChildren: true})
		w.must(err)
	}
	for _, table := range []string{"images", "image_names", "image_manifests", "image_holds", "layers", "layer_holds"} {
		if n := w.count(table); n != 0 {
			w.t.Errorf("%d rows in %s", n, table)
		}
	}
	w.await("an end of the files", func() bool { return len(w.files()) == 0 })
}

// await waits for something that another process does on disk.
func (w *imageWork) await(what string, there func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patient); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited for %s; on disk are %v", what, w.files())
		}
	}
}

// files are what engined keeps for images on disk.
func (w *imageWork) files() (left []string) {
	w.t.Helper()
	for _, pattern := range []string{"overlay2/*", "tmp/*", "image/*"} {
		found, err := filepath.Glob(filepath.Join(w.stack.DataRoot(), pattern))
		w.must(err)
		for _, path := range found {
			if filepath.Base(path) != "engined-layers" {
				left = append(left, path)
			}
		}
	}
	return left
}
