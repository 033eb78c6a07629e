package layer

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

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

// unneeded is true of layers without hold, child and writable layer on them.
const unneeded = `
	AND NOT EXISTS (SELECT 1 FROM layer_holds h WHERE h.driver = layers.driver AND h.chain = layers.chain)
	AND NOT EXISTS (SELECT 1 FROM layers c WHERE c.driver = layers.driver AND c.parent = layers.chain)
	AND NOT EXISTS (SELECT 1 FROM writable_layers w WHERE w.driver = layers.driver AND w.parent = layers.chain)`

// Collect removes every layer that nobody needs and returns them, each before
// its parent. Rows go at once, files in the background.
func (s *Store) Collect(ctx context.Context) (removed []Layer, err error) {
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		removed, err = s.collectIn(ctx, tx, func(tx *sql.Tx, _ []Layer) ([]Layer, error) { return s.query(ctx, tx, unneeded) })
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Drop(removed)
	return removed, nil
}

// CollectIn is the rows' part of Collect in the caller's transaction, for layers
// that have just lost a hold and for those below them: it does not look at all
// others. Call Drop with what it returns after it has committed.
func (s *Store) CollectIn(ctx context.Context, tx *sql.Tx, tops []digest.Digest) ([]Layer, error) {
	return s.collectIn(ctx, tx, func(tx *sql.Tx, removed []Layer) (found []Layer, err error) {
		next := tops
		if len(removed) > 0 {
			next = nil
			for _, l := range removed {
				next = append(next, l.Parent)
			}
		}
		for _, chain := range next {
			one, err := s.query(ctx, tx, `AND chain = ?`+unneeded, chain.String())
			if err != nil {
				return nil, err
			}
			if len(one) > 0 && !slices.ContainsFunc(found, func(l Layer) bool { return l.Chain == chain }) {
				found = append(found, one...)
			}
		}
		return found, nil
	})
}

// collectIn removes the rows that next finds, given what it found before, until
// that is nothing.
func (s *Store) collectIn(ctx context.Context, tx *sql.Tx, next func(*sql.Tx, []Layer) ([]Layer, error)) ([]Layer, error) {
	var removed []Layer
	found, err := next(tx, nil)
	for ; err == nil && len(found) > 0; found, err = next(tx, found) {
		for _, l := range found {
			if _, err := tx.ExecContext(ctx, `DELETE FROM layers WHERE driver = ? AND chain = ?`, s.Name(), l.Chain.String()); err != nil {
				return nil, fmt.Errorf("removing unneeded layers: %w", err)
			}
		}
		removed = append(removed, found...)
	}
	if err != nil {
		return nil, fmt.Errorf("removing unneeded layers: %w", err)
	}
	return removed, nil
}

// Drop removes the files of layers whose rows are gone, in the background.
func (s *Store) Drop(removed []Layer) {
	if len(removed) > 0 {
		failpoint.At("layers-collected")
	}
	for _, l := range removed {
		s.drop(l.dir)
	}
}
