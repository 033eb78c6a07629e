package layer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// conformance is what every driver must do, at every place where it works.
var conformance = []struct {
	name string
	test func(t *testing.T, p place, s *Store)
}{
	{"a chain of parents joins, and stays as it is", chainJoins},
	{"two containers on one image do not see each other", containersAreApart},
	{"size counts what a container wrote", sizeCounts},
	{"a new process finds everything", newProcessFinds},
	{"removing leaves nothing", removeLeavesNothing},
	{"a size limits or is refused", sizeLimits},
}

func TestDriversConform(t *testing.T) {
	eachPlace(t, func(t *testing.T, p place, root string) {
		for i, c := range conformance {
			t.Run(c.name, func(t *testing.T) {
				below := filepath.Join(root, fmt.Sprint(i))
				s := open(t, below, p.driver)
				c.test(t, p, s)
			})
		}
	})
}

// image registers a base and two layers that change it.
func image(t *testing.T, s *Store) (top Layer) {
	t.Helper()
	base := s.mustRegister(t, "", dir("d/", 0o750), file("d/kept", "1"), file("d/gone", "1"), file("changed", "old"), hard("other", "changed"),
		dir("opaque/", 0o755), file("opaque/hidden", "x"))
	middle := s.mustRegister(t, base.Chain, file("d/.wh.gone", ""), file("changed", "new"), link("link", "d/kept"))
	return s.mustRegister(t, middle.Chain, file("opaque/.wh..wh..opq", ""), file("opaque/shown", "y"), file("d/gone", "back"))
}

func chainJoins(t *testing.T, _ place, s *Store) {
	top := image(t, s)
	var before bytes.Buffer
	if err := s.WriteTar(t.Context(), top.Chain, &before); err != nil {
		t.Fatal(err)
	}
	root := s.mustMount(t, "c1", top.Chain)
	for path, want := range map[string]string{"d/kept": "1", "d/gone": "back", "changed": "new", "other": "old", "opaque/shown": "y", "link": "1"} {
		if got := read(t, filepath.Join(root, path)); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	if exists(filepath.Join(root, "opaque/hidden")) {
		t.Error("an opaque directory shows what is below")
	}
	for _, name := range []string{"d/kept", "changed"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("written"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var after bytes.Buffer
	if err := s.WriteTar(t.Context(), top.Chain, &after); err != nil || !bytes.Equal(before.Bytes(), after.Bytes()) {
		t.Errorf("a container changed its image: %v", err)
	}
	if digest.FromBytes(after.Bytes()) != top.Diff {
		t.Error("the layer's tar is not the one that came")
	}
}

func containersAreApart(t *testing.T, _ place, s *Store) {
	top := image(t, s)
	one, two := s.mustMount(t, "c1", top.Chain), s.mustMount(t, "c2", top.Chain)
	if err := os.WriteFile(filepath.Join(one, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(one, "d")); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(two, "mine")) || !exists(filepath.Join(two, "d/kept")) {
		t.Error("one container's change is in the other")
	}
	if err := s.Unmount(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if one = mounted(t, s, "c1"); exists(filepath.Join(one, "d")) || !exists(filepath.Join(one, "mine")) {
		t.Error("changes are lost over unmount and mount")
	}
}

func sizeCounts(t *testing.T, _ place, s *Store) {
	root := s.mustMount(t, "c1", image(t, s).Chain)
	for name, content := range map[string]string{"fresh": "12345", "changed": "1234567890"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if size, err := s.Size(t.Context(), "c1"); err != nil || size != 15 {
		t.Errorf("size %d, %v; want 15", size, err)
	}
}

func newProcessFinds(t *testing.T, p place, s *Store) {
	top := image(t, s)
	if err := os.WriteFile(filepath.Join(s.mustMount(t, "c1", top.Chain), "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), s.db, filepath.Dir(s.root), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Name() != p.driver || !exists(filepath.Join(mounted(t, again, "c1"), "kept")) {
		t.Errorf("driver %s, kept: %v", again.Name(), exists(filepath.Join(mounted(t, again, "c1"), "kept")))
	}
	if l, err := again.Get(t.Context(), top.Chain); err != nil || l.Damaged != "" {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := again.Register(t.Context(), RegisterRequest{Parent: top.Chain, Owner: "image/test"}, bytes.NewReader(tarOf(t, file("x", "y")))); err != nil {
		t.Errorf("registering on it: %v", err)
	}
}

func removeLeavesNothing(t *testing.T, _ place, s *Store) {
	top := image(t, s)
	root := s.mustMount(t, "c1", top.Chain)
	busy, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if _, err := s.Register(t.Context(), RegisterRequest{Parent: top.Chain, Owner: "work/x"}, strings.NewReader("no tar")); err == nil {
		t.Error("rubbish was registered")
	}
	if err := s.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), "image/test"); err != nil {
		t.Fatal(err)
	}
	onlyLayers(t, s, 0)
}

func sizeLimits(t *testing.T, p place, s *Store) {
	const limit, written = 32 << 20, 48 << 20
	top := image(t, s)
	err := s.Create(t.Context(), "c1", top.Chain, CreateOptions{StorageOpt: map[string]string{"size": "32M"}})
	if !p.size {
		if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), "--storage-opt is supported only for") {
			t.Errorf("got %v", err)
		}
		onlyLayers(t, s, 3)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	root := mounted(t, s, "c1")
	t.Cleanup(func() { _ = s.Remove(t.Context(), "c1") })
	if err := fillFile(filepath.Join(root, "big"), written); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing more than the limit: %v", err)
	}
	if err := os.Remove(filepath.Join(root, "big")); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "c2", top.Chain, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := fillFile(filepath.Join(mounted(t, s, "c2"), "big"), written); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if err := s.Create(t.Context(), "c3", top.Chain, CreateOptions{StorageOpt: map[string]string{"size": "32M", "colour": "red"}}); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("an unknown option: %v", err)
	}
	for _, id := range []string{"c1", "c2"} {
		if err := s.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	onlyLayers(t, s, 3)
}

// fillFile writes what cannot be compressed away, to the disk.
func fillFile(path string, size int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * i >> 3)
	}
	for written := 0; written < size; written += len(block) {
		if _, err := file.Write(block); err != nil {
			return err
		}
	}
	return file.Sync()
}
