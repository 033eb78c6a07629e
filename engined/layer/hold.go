package layer

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/failpoint"
)

// HoldIn records in the caller's transaction that owner needs the layer, so
// that the need and the row that causes it appear together. The empty chain id
// needs nothing.
func (s *Store) HoldIn(ctx context.Context, tx *sql.Tx, chain digest.Digest, owner string) error {
	if chain == "" {
		return nil
	}
	if _, err := s.get(ctx, tx, chain); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO layer_holds (driver, owner, chain) VALUES (?, ?, ?)`,
		s.Name(), owner, chain.String())
	return err
}

// ReleaseIn drops all holds of owner in the caller's transaction. Call Collect
// after it has committed.
func (s *Store) ReleaseIn(ctx context.Context, tx *sql.Tx, owner string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM layer_holds WHERE driver = ? AND owner = ?`, s.Name(), owner)
	return err
}

// Release drops all holds of owner and removes the layers nobody needs now.
func (s *Store) Release(ctx context.Context, owner string) error {
	err := s.db.Update(ctx, func(tx *sql.Tx) error { return s.ReleaseIn(ctx, tx, owner) })
	if err != nil {
		return fmt.Errorf("releasing the layers of %s: %w", owner, err)
	}
	_, err = s.Collect(ctx)
	return err
}

// Collect removes every layer that nobody needs and returns them, each before
// its parent. Rows go at once, files in the background.
func (s *Store) Collect(ctx context.Context) ([]Layer, error) {
	var removed []Layer
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		removed = nil
		for {
			unneeded, err := s.query(ctx, tx, `
				AND NOT EXISTS (SELECT 1 FROM layer_holds h WHERE h.driver = layers.driver AND h.chain = layers.chain)
				AND NOT EXISTS (SELECT 1 FROM layers c WHERE c.driver = layers.driver AND c.parent = layers.chain)
				AND NOT EXISTS (SELECT 1 FROM writable_layers w WHERE w.driver = layers.driver AND w.parent = layers.chain)`)
			if err != nil || len(unneeded) == 0 {
				return err
			}
			for _, l := range unneeded {
				if _, err := tx.ExecContext(ctx, `DELETE FROM layers WHERE driver = ? AND chain = ?`, s.Name(), l.Chain.String()); err != nil {
					return err
				}
			}
			removed = append(removed, unneeded...)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("removing unneeded layers: %w", err)
	}
	if len(removed) > 0 {
		failpoint.At("layers-collected")
	}
	for _, l := range removed {
		s.drop(l.dir)
	}
	return removed, nil
}
