package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/mattn/go-sqlite3"
)

// A full disk is when people remove things, and to remove is to write: the
// database keeps room for that. Its file holds free pages, and its write-ahead
// log is as long as it gets between two checkpoints, so that on file systems
// that write in place neither has to grow for a change of everyday size. (On
// copy-on-write ones, as btrfs, nothing can be promised.)
const (
	checkpoint = 128               // pages in the log after which they are moved to the file
	roomPages  = 2 * checkpoint    // a large change may come just before that
	enoughRoom = roomPages * 3 / 4 // that need not be made anew: it takes a write of three times the room
	pageSize   = 4096              // SQLite's default
)

// keepRoom makes the room where it is missing. The log stays when the database is
// closed, so that it can be opened on a full disk, too; where that is full before
// any room was made, there is none. It must run on the writer's only connection,
// whose the interval is.
func (db *DB) keepRoom(ctx context.Context) error {
	if _, err := db.write.ExecContext(ctx, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", checkpoint)); err != nil {
		return err
	}
	if err := db.keepLog(ctx); err != nil {
		return fmt.Errorf("keeping the log: %w", err)
	}
	enough, err := db.hasRoom(ctx)
	if err != nil || enough {
		return err
	}
	for _, statement := range []string{
		`CREATE TABLE IF NOT EXISTS room (bytes BLOB NOT NULL) STRICT`,
		fmt.Sprintf(`INSERT INTO room VALUES (zeroblob(%d))`, roomPages*pageSize),
		`DELETE FROM room`,
	} {
		err := db.Update(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		})
		var said sqlite3.Error
		if errors.As(err, &said) && said.Code == sqlite3.ErrFull {
			return nil
		}
		if err != nil {
			return fmt.Errorf("making room for changes on a full disk: %w", err)
		}
	}
	return nil
}

// keepLog has the writer, which is closed last, leave the log behind.
func (db *DB) keepLog(ctx context.Context) error {
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(driver any) error {
		return driver.(*sqlite3.SQLiteConn).SetFileControlInt("main", sqlite3.SQLITE_FCNTL_PERSIST_WAL, 1)
	})
}

func (db *DB) hasRoom(ctx context.Context) (bool, error) {
	var free int64
	if err := db.write.QueryRowContext(ctx, `PRAGMA freelist_count`).Scan(&free); err != nil {
		return false, fmt.Errorf("counting free pages: %w", err)
	}
	log, err := os.Stat(db.path + "-wal")
	return err == nil && free >= enoughRoom && log.Size() >= roomPages*pageSize, nil // no log, no room
}
