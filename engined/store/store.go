package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	_ "github.com/mattn/go-sqlite3" // the database/sql driver "sqlite3"
	"golang.org/x/sys/unix"
)

// readers bounds the connections that views use at the same time.
const readers = 4

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path  string
	write *sql.DB // one connection: the queue of writers
	read  *sql.DB

	changes atomic.Uint64
}

// Open opens or creates the database at path, readable by its owner alone.
func Open(ctx context.Context, path string) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	if err := touch(path); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	write, err := connect(ctx, path, 1, "_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	read, err := connect(ctx, path, readers, "_query_only=true")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening store %s: %w", path, err), write.Close())
	}
	db := &DB{path: path, write: write, read: read}
	err = db.Update(ctx, createVersions)
	if err == nil {
		err = db.keepRoom(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening store %s: %w", path, err), db.Close())
	}
	return db, nil
}

// touch creates the file before SQLite does, which would give it the mode the
// umask leaves. SQLite gives its -wal and -shm files the mode of this one.
func touch(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}

func connect(ctx context.Context, path string, connections int, option string) (*sql.DB, error) {
	const common = "_journal_mode=WAL&_busy_timeout=10000&_foreign_keys=on&_synchronous=NORMAL&_stmt_cache_size=64"
	name := url.URL{Scheme: "file", Path: path, RawQuery: common + "&" + option}
	pool, err := sql.Open("sqlite3", name.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(connections)
	pool.SetMaxIdleConns(connections)
	if err := fill(ctx, pool, connections); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return pool, nil
}

// fill opens all connections that the pool may have: descriptors that come one
// by one, under load, look like a leak.
func fill(ctx context.Context, pool *sql.DB, connections int) error {
	for range connections {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	return nil
}

// Update runs do in a transaction that may write, and commits it if do returns
// nil. One runs at a time; others wait for it or for their context.
func (db *DB) Update(ctx context.Context, do func(*sql.Tx) error) error {
	defer db.changes.Add(1) // also after an error: a commit may have done its work before
	return transact(ctx, db.write, do)
}

// Changes is another number after every Update that has returned. What was read
// after asking for it is true as long as it stays: a file has one writer.
func (db *DB) Changes() uint64 { return db.changes.Load() }

// View runs do in a transaction that reads one consistent state.
func (db *DB) View(ctx context.Context, do func(*sql.Tx) error) error {
	return transact(ctx, db.read, do)
}

func transact(ctx context.Context, pool *sql.DB, do func(*sql.Tx) error) (err error) {
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning transaction: %w", err)
	}
	defer func() {
		// Also on a panic of do, which would keep the only writer's connection.
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("rolling back: %w", rollback))
		}
	}()
	if err := do(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing transaction: %w", err)
	}
	return nil
}

// Sync makes what was committed until now survive a power failure, too. What is
// not in the log any more has been synced on its way into the file.
func (db *DB) Sync() error {
	log, err := os.OpenFile(db.path+"-wal", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("syncing the database: %w", err)
	}
	defer log.Close() // SQLite's locks are on the other two files
	if err := unix.Fdatasync(int(log.Fd())); err != nil {
		return fmt.Errorf("syncing the database: %w", err)
	}
	return nil
}

// Close waits for running transactions and closes the database.
func (db *DB) Close() error {
	return errors.Join(db.read.Close(), db.write.Close())
}
