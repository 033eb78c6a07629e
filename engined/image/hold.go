package image

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// Hold records that owner ("container/<id>") uses the image. It fails if the
// image is gone, also when that happened since it was resolved.
func (s *Store) Hold(ctx context.Context, id digest.Digest, owner string) error {
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO image_holds (owner, image) VALUES (?, ?)`, owner, id.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("holding image %s for %s: %w", id, owner, err)
	}
	return nil
}

// Release drops all holds of owner. None is no error.
func (s *Store) Release(ctx context.Context, owner string) error {
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM image_holds WHERE owner = ?`, owner)
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing the images of %s: %w", owner, err)
	}
	return nil
}

// holders returns who holds the image.
func holders(ctx context.Context, tx *sql.Tx, id digest.Digest) ([]string, error) {
	return stringsOf(ctx, tx, `SELECT owner FROM image_holds WHERE image = ? ORDER BY owner`, id.String())
}

func mustExist(ctx context.Context, tx *sql.Tx, id digest.Digest) error {
	found, err := stringsOf(ctx, tx, `SELECT id FROM images WHERE id = ?`, id.String())
	if err == nil && len(found) == 0 {
		return noSuchImage(id.String())
	}
	return err
}

// stringsOf returns the only column of a query.
func stringsOf(ctx context.Context, tx *sql.Tx, query string, args ...any) ([]string, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []string
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, rows.Err()
}
