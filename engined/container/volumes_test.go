package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// withVolume creates a container that has a volume without a name, with a file
// in it.
func (w *world) withVolume(name string) (id, volume, file string) {
	w.t.Helper()
	id = w.create(name, func(r *CreateRequest) { r.Config.Volumes = map[string]struct{}{"/data": {}} })
	c, err := w.index.find(id)
	if err != nil {
		w.t.Fatal(err)
	}
	m := c.record.Load().Mounts[0]
	file = filepath.Join(m.Source, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return id, m.Name, file
}

func mounting(volume string) func(*CreateRequest) {
	return func(r *CreateRequest) { r.HostConfig.Binds = []string{volume + ":/data"} }
}

func TestAVolumeThatAnotherContainerUsesIsNotRemoved(t *testing.T) {
	w := newWorld(t).run()
	first, volume, file := w.withVolume("first")
	w.create("second", mounting(volume))
	if err := w.Remove(t.Context(), first, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestAVolumeOfAContainerThatIsBeingCreatedIsNotRemoved(t *testing.T) {
	w := newWorld(t).run()
	first, volume, file := w.withVolume("first")
	w.layers.creating = func() {
		if err := w.Remove(t.Context(), first, RemoveOptions{Volumes: true}); err != nil {
			t.Error(err)
		}
	}
	w.create("second", mounting(volume))
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestARemovalFinishesWhatOneBeforeHasLeftOfAVolume(t *testing.T) {
	w := newWorld(t).run()
	id, volume, _ := w.withVolume("web")
	half := filepath.Join(w.Root, "volumes", "."+volume+".removed")
	if err := os.MkdirAll(filepath.Join(half, "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if usage, err := w.VolumeUsage(t.Context()); err != nil || len(usage) != 1 {
		t.Errorf("volumes %v (%v)", usage, err)
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{half, filepath.Join(w.Root, "volumes", volume)} {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}
