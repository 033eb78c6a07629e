package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/engined/engined/proto/errdefs"
)

func createVersions(tx *sql.Tx) error {
	_, err := tx.Exec(`CREATE TABLE IF NOT EXISTS schema_versions (
		noun    TEXT PRIMARY KEY,
		version INTEGER NOT NULL
	) STRICT`)
	return err
}

// Migrate brings a noun's tables to version len(steps). steps[i] is the SQL
// that leads from version i to i+1 and, once released, never changes. Each
// step and its number are committed together.
func (db *DB) Migrate(ctx context.Context, noun string, steps []string) error {
	for {
		done, err := db.migrateOne(ctx, noun, steps)
		if err != nil {
			return fmt.Errorf("migrating tables of %s: %w", noun, err)
		}
		if done {
			return nil
		}
	}
}

func (db *DB) migrateOne(ctx context.Context, noun string, steps []string) (done bool, err error) {
	err = db.Update(ctx, func(tx *sql.Tx) error {
		version, err := versionOf(ctx, tx, noun)
		if err != nil {
			return err
		}
		if version > len(steps) {
			return errdefs.FailedPrecondition.Errorf("the database is at version %d, this engined knows up to %d", version, len(steps))
		}
		if version == len(steps) {
			done = true
			return nil
		}
		if _, err := tx.ExecContext(ctx, steps[version]); err != nil {
			return fmt.Errorf("step %d: %w", version+1, err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO schema_versions (noun, version) VALUES (?, ?)
			ON CONFLICT (noun) DO UPDATE SET version = excluded.version`, noun, version+1)
		return err
	})
	return done, err
}

func versionOf(ctx context.Context, tx *sql.Tx, noun string) (version int, err error) {
	err = tx.QueryRowContext(ctx, `SELECT version FROM schema_versions WHERE noun = ?`, noun).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, err
}
