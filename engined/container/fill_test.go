package container

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// endsAfter is a context that ends when it was asked often enough.
type endsAfter struct {
	context.Context
	asked *int
}

func (c endsAfter) Err() error {
	if *c.asked--; *c.asked < 0 {
		return errFake
	}
	return nil
}

func TestAVolumeThatWasFilledHalfWayIsFilledByTheNextStart(t *testing.T) {
	rootfs, volume := t.TempDir(), filepath.Join(t.TempDir(), "_data")
	content := bytes.Repeat([]byte("content "), 1<<16)
	for _, dir := range []string{filepath.Join(rootfs, "data"), volume} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(rootfs, "data", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reads := 20
	if err := fillVolume(endsAfter{t.Context(), &reads}, volume, rootfs, "/data"); !errors.Is(err, errFake) {
		t.Fatalf("the copy was not cut off: %v", err)
	}
	if has, err := os.ReadDir(volume); err != nil || len(has) == 0 || len(has) == 3 {
		t.Fatalf("the volume has %v (%v), not a part", has, err)
	}
	if err := fillVolume(t.Context(), volume, rootfs, "/data"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if got, err := os.ReadFile(filepath.Join(volume, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s has %d bytes (%v)", name, len(got), err)
		}
	}
	if err := os.Remove(filepath.Join(volume, "b")); err != nil {
		t.Fatal(err)
	}
	if err := fillVolume(t.Context(), volume, rootfs, "/data"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(volume, "b")); err == nil {
		t.Error("a volume that was full and in use was filled again")
	}
}

func TestAStartWaitsForAnotherThatFillsItsVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t).run()
		defer w.end()
		id := w.create("web", mounting("shared"))
		release, err := w.fillings.take(t.Context(), "shared")
		if err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { started <- w.Start(t.Context(), id) }()
		synctest.Wait()
		if phase := w.phase(id); phase != created {
			t.Errorf("phase %s", phase)
		}
		release()
		if err := <-started; err != nil {
			t.Error(err)
		}
		release, err = w.fillings.take(t.Context(), "shared")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		other := w.create("other", mounting("shared"))
		if err := w.Start(t.Context(), other); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a start whose time is up: %v", err)
		}
	})
}
