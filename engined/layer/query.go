package layer

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/proto/errdefs"
)

// Get returns one layer, NotFound if there is none.
func (s *Store) Get(ctx context.Context, chain digest.Digest) (l Layer, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		l, err = s.get(ctx, tx, chain)
		return err
	})
	return l, err
}

// Find returns a layer, damaged or not, as the caller's transaction sees it.
func (s *Store) Find(ctx context.Context, tx *sql.Tx, chain digest.Digest) (l Layer, found bool, err error) {
	rows, err := s.query(ctx, tx, `AND chain = ?`, chain.String())
	if err != nil || len(rows) == 0 {
		return Layer{}, false, err
	}
	return rows[0], true, nil
}

// All returns every layer by chain id.
func (s *Store) All(ctx context.Context) (map[digest.Digest]Layer, error) {
	all := map[digest.Digest]Layer{}
	err := s.db.View(ctx, func(tx *sql.Tx) error {
		layers, err := s.query(ctx, tx, ``)
		for _, l := range layers {
			all[l.Chain] = l
		}
		return err
	})
	return all, err
}

// any says whether there is a layer.
func (s *Store) any(ctx context.Context) (is bool, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM layers WHERE driver = ?)`, s.Name()).Scan(&is)
	})
	if err != nil {
		err = fmt.Errorf("reading layers: %w", err)
	}
	return is, err
}

// Chain returns the layers below and including top, bottom first. It is empty
// for the empty chain id, and an error if any of them is damaged.
func (s *Store) Chain(ctx context.Context, top digest.Digest) ([]Layer, error) {
	var layers []Layer
	err := s.db.View(ctx, func(tx *sql.Tx) (err error) {
		layers, err = s.chain(ctx, tx, top)
		return err
	})
	return layers, err
}

func (s *Store) chain(ctx context.Context, tx *sql.Tx, top digest.Digest) ([]Layer, error) {
	var layers []Layer
	for at := top; at != ""; {
		l, err := s.get(ctx, tx, at)
		if err != nil {
			return nil, err
		}
		if l.Damaged != "" {
			return nil, errdefs.DataLoss.Errorf("layer %s is damaged: %s", l.Chain, l.Damaged)
		}
		layers = append(layers, l)
		at = l.Parent
	}
	for i, j := 0, len(layers)-1; i < j; i, j = i+1, j-1 {
		layers[i], layers[j] = layers[j], layers[i]
	}
	return layers, nil
}

// get reads one row.
func (s *Store) get(ctx context.Context, tx *sql.Tx, chain digest.Digest) (Layer, error) {
	l, found, err := s.Find(ctx, tx, chain)
	if err == nil && !found {
		err = errdefs.NotFound.Errorf("no such layer: %s", chain)
	}
	return l, err
}

// query reads rows; tail is what follows the WHERE driver clause.
func (s *Store) query(ctx context.Context, tx *sql.Tx, tail string, args ...any) ([]Layer, error) {
	const columns = `SELECT chain, diff, COALESCE(parent, ''), dir, size, total, created, damaged FROM layers WHERE driver = ? `
	rows, err := tx.QueryContext(ctx, columns+tail, append([]any{s.Name()}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("reading layers: %w", err)
	}
	defer rows.Close()
	var layers []Layer
	for rows.Next() {
		var l Layer
		var created int64
		err := rows.Scan(&l.Chain, &l.Diff, &l.Parent, &l.dir, &l.Size, &l.Total, &created, &l.Damaged)
		if err != nil {
			return nil, fmt.Errorf("reading a layer's row: %w", err)
		}
		l.Created = time.Unix(0, created)
		if fault := faultOf(&l); fault != "" {
			l.Damaged, l.Parent, l.misfit = fault, "", true // no way on from here: it may lead in a circle
			if !isLayerDir(l.dir) {
				l.dir = "" // it may be another's
			}
		}
		layers = append(layers, l)
	}
	return layers, rows.Err()
}

// Holds returns the layers that each owner holds.
func (s *Store) Holds(ctx context.Context) (map[string][]digest.Digest, error) {
	holds := map[string][]digest.Digest{}
	err := s.db.View(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT owner, chain FROM layer_holds WHERE driver = ?`, s.Name())
		if err != nil {
			return fmt.Errorf("reading holds: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var owner string
			var chain digest.Digest
			if err := rows.Scan(&owner, &chain); err != nil {
				return err
			}
			holds[owner] = append(holds[owner], chain)
		}
		return rows.Err()
	})
	return holds, err
}

// paths returns the layers' directories, top first, as drivers want them.
func (s *Store) paths(layers []Layer) []string {
	paths := make([]string, 0, len(layers))
	for i := len(layers) - 1; i >= 0; i-- {
		paths = append(paths, filepath.Join(s.root, layers[i].dir))
	}
	return paths
}

// eachString calls do with the only column of every row.
func eachString(ctx context.Context, tx *sql.Tx, do func(string), query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			return err
		}
		do(value)
	}
	return rows.Err()
}

// orNull stores the empty digest as NULL, which foreign keys ignore.
func orNull(d digest.Digest) any {
	if d == "" {
		return nil
	}
	return d.String()
}
