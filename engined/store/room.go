package store

import (
	"context"
	"database/sql"
	"fmt"
)

// A full disk is when people remove things, and to remove is to write: the
// database keeps room for that. Its file holds free pages, and its write-ahead
// log is as long as it gets between two checkpoints, so that on file systems
// that write in place neither has to grow for a change of everyday size. (On
// copy-on-write ones, as btrfs, nothing can be promised.)
const (
	checkpoint = 128            // pages in the log after which they are moved to the file
	roomPages  = 2 * checkpoint // a large change may come just before that
	pageSize   = 4096           // SQLite's default
)

// keepRoom makes the room, each time anew: closing the database removes the
// log. It must run on the writer's only connection, whose the interval is.
func (db *DB) keepRoom(ctx context.Context) error {
	if _, err := db.write.ExecContext(ctx, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", checkpoint)); err != nil {
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
		if err != nil {
			return fmt.Errorf("making room for changes on a full disk: %w", err)
		}
	}
	return nil
}
