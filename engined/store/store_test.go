package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/engined/engined/proto/errdefs"
)

var schema = []string{
	`CREATE TABLE things (name TEXT PRIMARY KEY) STRICT`,
	`ALTER TABLE things ADD COLUMN size INTEGER NOT NULL DEFAULT 7`,
}

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func insert(name string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (name) VALUES (?)`, name)
		return err
	}
}

func count(t *testing.T, db *DB) (n int) {
	t.Helper()
	err := db.View(t.Context(), func(tx *sql.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM things`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMigrateAppliesTheMissingStepsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a?b.db") // characters that mean something in a URL
	db := open(t, path)
	for _, steps := range [][]string{schema[:1], schema, schema} {
		if err := db.Migrate(t.Context(), "thing", steps); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Update(t.Context(), insert("a")); err != nil {
		t.Fatal(err)
	}
	err := db.Migrate(t.Context(), "thing", schema[:1])
	if errdefs.KindOf(err) != errdefs.FailedPrecondition {
		t.Errorf("a newer database: %v", err)
	}
	again := open(t, path)
	if n := count(t, again); n != 1 {
		t.Errorf("%d rows after reopening, want 1", n)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path was taken apart: %v", err)
	}
}

func TestAFailedStepLeavesTheVersionBefore(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	broken := []string{schema[0], `CREATE TABLE other (x INTEGER); SELECT nonsense FROM nowhere`}
	if err := db.Migrate(t.Context(), "thing", broken); err == nil {
		t.Fatal("no error")
	}
	if err := db.Migrate(t.Context(), "thing", schema); err != nil {
		t.Errorf("going on from version 1: %v", err)
	}
}

func TestUpdateRollsBackOnErrorAndOnPanic(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := db.Migrate(t.Context(), "thing", schema); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no")
	err := db.Update(t.Context(), func(tx *sql.Tx) error {
		return errors.Join(insert("a")(tx), cause)
	})
	if !errors.Is(err, cause) {
		t.Errorf("err = %v", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Update(t.Context(), func(tx *sql.Tx) error {
			_ = insert("b")(tx)
			panic("broken")
		})
	}()
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows, want 0", n)
	}
}

func TestWritersQueueAndReadersDoNotWait(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := db.Migrate(t.Context(), "thing", schema); err != nil {
		t.Fatal(err)
	}
	held, release := make(chan struct{}), make(chan struct{})
	var writers sync.WaitGroup
	writers.Go(func() {
		err := db.Update(t.Context(), func(tx *sql.Tx) error {
			close(held)
			<-release
			return insert("first")(tx)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-held
	if n := count(t, db); n != 0 {
		t.Errorf("a reader sees %d uncommitted rows", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Update(ctx, insert("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("a writer whose caller left: %v", err)
	}
	writers.Go(func() {
		if err := db.Update(t.Context(), insert("second")); err != nil {
			t.Error(err)
		}
	})
	close(release)
	writers.Wait()
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestAViewCannotWrite(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"))
	if err := db.Migrate(t.Context(), "thing", schema); err != nil {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), insert("a")); err == nil {
		t.Error("a view wrote")
	}
}

func TestTheFileIsForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open(t, path)
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}
