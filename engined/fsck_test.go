package engined

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// dataRoot makes one with an image, whose uppermost layer's directory it returns.
func dataRoot(t *testing.T) (config Config, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	config = Config{DataRoot: t.TempDir(), StorageDriver: "overlay"}
	db, err := store.Open(t.Context(), filepath.Join(config.DataRoot, "engined.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	layers, err := layer.Open(t.Context(), db, config.DataRoot, layer.Options{Driver: "overlay"})
	if err != nil {
		t.Fatal(err)
	}
	defer layers.Close()
	images, err := image.Open(t.Context(), db, layers, events.New(), config.DataRoot)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := images.Import(t.Context(), image.ImportRequest{Repository: "one"}, bytes.NewReader(aTar(t))); err != nil {
		t.Fatal(err)
	}
	inspected, err := images.Inspect(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	return config, inspected.GraphDriver.Data["UpperDir"]
}

func aTar(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Size: 4, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("body")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func fsck(t *testing.T, config Config, repair bool) (said string, left int) {
	t.Helper()
	var out strings.Builder
	left, err := Fsck(t.Context(), config, repair, &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), left
}

func TestFsckFindsAndRepairs(t *testing.T) {
	config, dir := dataRoot(t)
	if said, left := fsck(t, config, false); left != 0 || said != config.DataRoot+": clean\n" {
		t.Errorf("%d %q", left, said)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, left := fsck(t, config, false); left != 1 || !strings.Contains(said, "cannot be read as they were") {
		t.Errorf("%d %q", left, said)
	}
	if said, left := fsck(t, config, true); left != 0 || !strings.Contains(said, "marked as damaged") || !strings.Contains(said, "one:latest") {
		t.Errorf("%d %q", left, said)
	}
}

// TestFsckLooksWhereTheDaemonDoes: at the layers of the environment's driver.
func TestFsckLooksWhereTheDaemonDoes(t *testing.T) {
	config, dir := dataRoot(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(driverVariable, config.StorageDriver)
	config.StorageDriver = "vfs"
	if said, left := fsck(t, config, false); left != 1 || !strings.Contains(said, "cannot be read as they were") {
		t.Errorf("%d %q", left, said)
	}
}

func TestFsckLeavesOthersAlone(t *testing.T) {
	config, _ := dataRoot(t)
	held, err := take(filepath.Join(config.DataRoot, "engined.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fsck(t.Context(), config, true, os.Stderr); errdefs.KindOf(err) != errdefs.Conflict {
		t.Errorf("of an engine that runs: %v", err)
	}
	if err := held.drop(); err != nil {
		t.Fatal(err)
	}
	empty := Config{DataRoot: t.TempDir()}
	if _, err := Fsck(t.Context(), empty, true, os.Stderr); err == nil {
		t.Error("a directory that is no data root: no error")
	}
	if left, err := os.ReadDir(empty.DataRoot); err != nil || len(left) != 0 {
		t.Errorf("it made %v there (%v)", left, err)
	}
}
