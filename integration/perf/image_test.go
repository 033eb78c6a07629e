package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/images"
)

// engine is a contender in handling images.
type engine struct {
	name   string
	client *client.Client
	empty  func() error // waits until what was removed is gone, so that it does not disturb the next one
}

// once is one sample of an engine: it says itself how long what counts took.
type once func(e engine) (time.Duration, error)

// imageEngines starts engined and, where it is installed, Debian's dockerd.
func imageEngines(t *testing.T) (*harness.Stack, []engine) {
	t.Helper()
	stack := harness.New(t, harness.Options{NoImage: true})
	engines := []engine{{"engined", stack.Client(t), func() error { return awaitSwept(stack.DataRoot()) }}}
	if reference := harness.NewDockerd(t); reference != nil {
		engines = append(engines, engine{"dockerd", reference.Client(t), func() error { return nil }})
	}
	return stack, engines
}

// awaitSwept waits until engined, which has no image any more, has removed the
// files of all layers.
func awaitSwept(root string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left, err := os.ReadDir(filepath.Join(root, "overlay2"))
		if err != nil || len(left) <= 1 { // the mark that it is engined's
			return err
		}
	}
	return errors.New("engined does not finish removing layers")
}

// compare has the engines take turns, one sample each after one that does not
// count; another begins each time, since the first meets what was prepared for
// all of them cold.
func compare(t *testing.T, title string, samples int, engines []engine, sample once) {
	t.Helper()
	if !*full {
		samples = 1
	}
	results := make([]measured, len(engines))
	for turn := -1; turn < samples; turn++ {
		for place := range engines {
			i := (turn + 1 + place) % len(engines)
			e := engines[i]
			took, err := sample(e)
			if err != nil {
				t.Fatalf("%s: %s: %v", title, e.name, err)
			}
			if results[i].name = e.name; turn >= 0 {
				results[i].times = append(results[i].times, took)
			}
		}
	}
	for i := range results {
		slices.Sort(results[i].times)
	}
	if text := table(title, results); *full {
		fmt.Print(text)
	}
}

// mega is the size of the images: a short run only keeps the measurement alive.
func mega(size int64) int64 {
	if !*full {
		return size << 20 / 50
	}
	return size << 20
}

func pull(e engine, name string) error {
	ctx := context.Background()
	stream, err := e.client.ImagePull(ctx, name, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	return stream.Wait(ctx)
}

func removeImages(e engine, names ...string) error {
	for _, name := range names {
		if _, err := e.client.ImageRemove(context.Background(), name, client.ImageRemoveOptions{PruneChildren: true}); err != nil {
			return err
		}
	}
	return nil
}

// TestImagePulls measures pulls from a registry on loopback. Every turn has an
// image of its own, and nothing is removed meanwhile: ext4 does not use inodes
// again for a minute after their removal, and looks at each of them when it makes
// a file.
func TestImagePulls(t *testing.T) {
	registry := harness.NewRegistry(t)
	_, engines := imageEngines(t)
	for name, layers := range map[string]int{"five": 5, "one": 1} {
		turns := newTurns(t, engines, func(turn int) string {
			return putNew(t, fmt.Sprintf("%s/%s:%d", registry.Host, name, turn), layers)
		})
		compare(t, "pull of 200 MB from loopback, layers: "+name, 6, engines, func(e engine) (time.Duration, error) {
			image := turns()
			began := time.Now()
			err := pull(e, image)
			return time.Since(began), err
		})
	}
}

// TestImageLoads measures loads. The archives are made by an engine that does
// not take part, for the same reason.
func TestImageLoads(t *testing.T) {
	registry := harness.NewRegistry(t)
	_, engines := imageEngines(t)
	maker := engine{"maker", harness.New(t, harness.Options{NoImage: true}).Client(t), nil}
	archives := newTurns(t, engines, func(turn int) string {
		return saved(t, maker, putNew(t, fmt.Sprintf("%s/load:%d", registry.Host, turn), 5))
	})
	compare(t, "load of 200 MB, 5 layers", 8, engines, func(e engine) (time.Duration, error) {
		archive := archives()
		began := time.Now()
		err := load(e, archive)
		return time.Since(began), err
	})
}

// newTurns returns what the engine whose turn it is shall work on: the same for
// all engines in a turn, made before the first sample.
func newTurns(t *testing.T, engines []engine, made func(turn int) string) func() string {
	samples, now := 0, ""
	return func() string {
		if samples%len(engines) == 0 {
			now = made(samples / len(engines))
			unix.Sync() // what was made is not written back while somebody is measured
		}
		samples++
		return now
	}
}

var seeds uint64

// putNew puts an image of 200 MB of which nobody has a layer.
func putNew(t *testing.T, name string, layers int) string {
	t.Helper()
	var all []greg.Layer
	for range layers {
		seeds++
		all = append(all, images.Layer(t, seeds, mega(200)/int64(layers)))
	}
	images.Put(t, name, images.Image(t, name, all...))
	return name
}

// saved is a file with an image as an engine saves it, which keeps the image:
// see TestImagePulls.
func saved(t *testing.T, e engine, name string) string {
	t.Helper()
	if err := pull(e, name); err != nil {
		t.Fatal(err)
	}
	stream, err := e.client.ImageSave(t.Context(), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	path := filepath.Join(t.TempDir(), "saved.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err = io.Copy(file, stream); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(e engine, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	stream, err := e.client.ImageLoad(context.Background(), file)
	if err != nil {
		return err
	}
	defer stream.Close()
	said, err := io.ReadAll(stream)
	if err == nil && strings.Contains(string(said), `"error"`) {
		err = fmt.Errorf("load: %s", said)
	}
	return err
}

// many writes an archive of count images with a layer of their own on a common
// one, and returns its path and their names.
func many(t *testing.T, count int) (path string, names []string) {
	t.Helper()
	base := images.Layer(t, 1000, 100<<10)
	all := map[gname.Reference]greg.Image{}
	for i := range count {
		name := fmt.Sprintf("many/image%d:1", i)
		ref, err := gname.ParseReference(name)
		if err != nil {
			t.Fatal(err)
		}
		all[ref] = images.Image(t, name, base, images.Layer(t, uint64(2000+i), 20<<10))
		names = append(names, name)
	}
	path = filepath.Join(t.TempDir(), "many.tar")
	if err := tarball.MultiRefWriteToFile(path, all); err != nil {
		t.Fatal(err)
	}
	return path, names
}

func few(count int) int {
	if !*full {
		return count / 50
	}
	return count
}

// TestImageRemoval measures the removal of 100 images, one by one.
func TestImageRemoval(t *testing.T) {
	archive, names := many(t, few(100))
	_, engines := imageEngines(t)
	compare(t, fmt.Sprintf("removal of %d images, one by one", len(names)), 5, engines, func(e engine) (time.Duration, error) {
		if err := load(e, archive); err != nil {
			return 0, err
		}
		began := time.Now()
		err := removeImages(e, names...)
		return time.Since(began), err
	})
}

// TestImageCount measures what 1,000 images do to a list and to a start.
func TestImageCount(t *testing.T) {
	archive, names := many(t, few(1000))
	stack, engines := imageEngines(t)
	for _, e := range engines {
		if err := load(e, archive); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, fmt.Sprintf("list of %d images", len(names)), 20, engines, func(e engine) (time.Duration, error) {
		began := time.Now()
		list, err := e.client.ImageList(context.Background(), client.ImageListOptions{})
		if err == nil && len(list.Items) < len(names) {
			err = fmt.Errorf("%d images listed", len(list.Items))
		}
		return time.Since(began), err
	})
	compare(t, fmt.Sprintf("start of engined with %d images, to the first answer", len(names)), 10, engines[:1], func(engine) (time.Duration, error) {
		if err := stack.Engined.Stop(); err != nil {
			return 0, err
		}
		began := time.Now()
		stack.StartEngined()
		return time.Since(began), nil
	})
}

// TestImageMemory prints what a pull of 1 GB adds to engined's memory.
func TestImageMemory(t *testing.T) {
	registry := harness.NewRegistry(t)
	var layers []greg.Layer
	for i := range 4 {
		layers = append(layers, images.Layer(t, uint64(i), mega(250)))
	}
	images.Put(t, registry.Host+"/large", images.Image(t, "large", layers...))
	stack, engines := imageEngines(t)
	engine := engines[0]
	before := stack.Engined.PeakMemory(t)
	for range 2 {
		if err := pull(engine, registry.Host+"/large"); err != nil {
			t.Fatal(err)
		}
		if err := removeImages(engine, registry.Host+"/large"); err != nil {
			t.Fatal(err)
		}
	}
	if after := stack.Engined.PeakMemory(t); *full {
		fmt.Printf("\npull of 1 GB: engined had %.1f MB resident before, at most %.1f MB during it\n", float64(before)/1e6, float64(after)/1e6)
	}
}
