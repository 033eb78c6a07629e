package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a small file system of the test's own.
func smallDisk(t *testing.T) (dir string, fill func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir = t.TempDir()
	if err := unix.Mount("store", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func() {
		file, err := os.Create(filepath.Join(dir, "filler"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for block := bytes.Repeat([]byte("x"), 4096); err == nil; {
			_, err = file.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestAFullDiskDoesNotStopChanges(t *testing.T) {
	dir, fill := smallDisk(t)
	db := open(t, filepath.Join(dir, "db"))
	if err := db.Migrate(t.Context(), "thing", schema); err != nil {
		t.Fatal(err)
	}
	fill()
	// Records come, change and go, as when somebody clears up.
	for i := range 300 {
		err := db.Update(t.Context(), func(tx *sql.Tx) error {
			if _, err := tx.Exec(`INSERT INTO things (name) VALUES (?)`, fmt.Sprint(i, string(bytes.Repeat([]byte("r"), 4000)))); err != nil {
				return err
			}
			_, err := tx.Exec(`DELETE FROM things WHERE rowid <= ?`, i-50)
			return err
		})
		if err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
	}
}

func TestRoomIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var sizes [3][2]int64
	var changed [3]uint64
	for i := range sizes {
		db, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		changed[i] = db.Changes()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for j, name := range []string{path, path + "-wal"} {
			found, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			sizes[i][j] = found.Size()
		}
	}
	if sizes[0][0] < 1<<20 || sizes[0][1] < 1<<20 || sizes[1] != sizes[0] || sizes[2] != sizes[0] {
		t.Errorf("sizes of the file and the log after each opening: %d", sizes)
	}
	if changed[1] >= changed[0] || changed[2] != changed[1] {
		t.Errorf("an opening took %d changes", changed)
	}
}

// TestOpensOnAFullDisk: an engined that was stopped has to start again there.
func TestOpensOnAFullDisk(t *testing.T) {
	dir, fill := smallDisk(t)
	path := filepath.Join(dir, "db")
	db, err := Open(t.Context(), path)
	if err == nil {
		err = db.Migrate(t.Context(), "thing", schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fill()
	for i := range 3 {
		db := open(t, path)
		err := db.Update(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO things (name) VALUES (?)`, fmt.Sprint(i, string(bytes.Repeat([]byte("r"), 4000))))
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
