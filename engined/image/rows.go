package image

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// row is an image as the database has it, with its layers' state.
type row struct {
	id, chain, parent digest.Digest
	tagged            time.Time
	config            *config // nil if damaged
	damage            error   // nil, or why the image cannot be used
	size              int64
	names             []name
	tags, digests     []string // the names as they are shown; only in a snapshot
}

const columns = `SELECT id, chain, parent, tagged FROM images `

// snapshot is every image at one state of the database. It is never changed.
type snapshot struct {
	changes uint64 // of the database, before it was read
	rows    []*row // newest first, of the same age by id
	parents map[digest.Digest]bool
}

// all returns every image. Nothing is read as long as the database is what it
// was the last time.
func (s *Store) all(ctx context.Context) (*snapshot, error) {
	s.mu.RLock()
	known := s.snapshot
	s.mu.RUnlock()
	changes := s.db.Changes()
	if known != nil && known.changes == changes {
		return known, nil
	}
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	found := &snapshot{changes: changes, rows: rows, parents: map[digest.Digest]bool{}}
	before := known.byID()
	for _, r := range rows {
		found.parents[r.parent] = true
		if old := before[r.id]; old != nil && slices.Equal(old.names, r.names) {
			r.tags, r.digests = old.tags, old.digests
		} else {
			r.tags, r.digests = familiar(r.names)
		}
	}
	slices.SortStableFunc(rows, func(a, b *row) int { return b.created().Compare(a.created()) })
	s.mu.Lock()
	s.snapshot = found
	s.mu.Unlock()
	return found, nil
}

// byID is the rows by their images; none of no snapshot.
func (s *snapshot) byID() map[digest.Digest]*row {
	if s == nil {
		return nil
	}
	byID := make(map[digest.Digest]*row, len(s.rows))
	for _, r := range s.rows {
		byID[r.id] = r
	}
	return byID
}

// rows reads every image, by id.
func (s *Store) rows(ctx context.Context) ([]*row, error) {
	layers, err := s.layers.All(ctx)
	if err != nil {
		return nil, err
	}
	known := func(_ *sql.Tx, chain digest.Digest) (l layer.Layer, found bool, err error) { //nolint:unparam // as layerOf
		l, found = layers[chain]
		return l, found, nil
	}
	var rows []*row
	err = s.db.View(ctx, func(tx *sql.Tx) (err error) {
		if rows, err = s.readRows(ctx, tx, known, columns+`ORDER BY id`); err != nil {
			return err
		}
		return readNames(ctx, tx, &rows, true)
	})
	return rows, err
}

// layerOf looks a layer up, damaged or not.
type layerOf func(tx *sql.Tx, chain digest.Digest) (l layer.Layer, found bool, err error)

// readRows reads rows; without layers nothing is said of what they are made of.
func (s *Store) readRows(ctx context.Context, tx *sql.Tx, layers layerOf, query string, args ...any) ([]*row, error) {
	found, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("reading images: %w", err)
	}
	defer found.Close()
	var rows []*row
	for found.Next() {
		var r row
		var tagged int64
		if err := found.Scan(&r.id, &r.chain, &r.parent, &tagged); err != nil {
			return nil, fmt.Errorf("reading an image's row: %w", err)
		}
		if tagged != 0 {
			r.tagged = time.Unix(0, tagged)
		}
		rows = append(rows, &r)
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	if err := s.learn(ctx, tx, len(rows)); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if err := s.complete(ctx, tx, r, layers); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// learn reads all configurations in one query if none is known, as at the start.
// Those that are damaged stay unknown.
func (s *Store) learn(ctx context.Context, tx *sql.Tx, count int) error {
	s.mu.RLock()
	known := len(s.configs)
	s.mu.RUnlock()
	if known > 0 || count < 2 {
		return nil
	}
	found, err := tx.QueryContext(ctx, `SELECT id, config FROM images`)
	if err != nil {
		return fmt.Errorf("reading configurations: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var id digest.Digest
		var raw []byte
		if err := found.Scan(&id, &raw); err != nil {
			return fmt.Errorf("reading a configuration: %w", err)
		}
		if parsed, err := storedConfig(id, raw); err == nil {
			s.remember(id, parsed)
		}
	}
	return found.Err()
}

// complete adds configuration and size to a row, or what is wrong with it.
func (s *Store) complete(ctx context.Context, tx *sql.Tx, r *row, layers layerOf) error {
	var err error
	if r.config, err = s.configOf(ctx, tx, r.id); err != nil {
		if errdefs.KindOf(err) != errdefs.DataLoss {
			return err
		}
		r.damage = err
	} else if r.config.chain != r.chain {
		r.damage = errdefs.DataLoss.Errorf("its row names layer %s, its configuration %s", r.chain, r.config.chain)
	}
	if layers == nil {
		return nil // who removes it does not ask what it is made of
	}
	for at := r.chain; at != ""; { // ends: rows that fit make no circle, and others have no parent
		l, found, err := layers(tx, at)
		switch {
		case err != nil:
			return err
		case r.damage != nil:
		case !found:
			r.damage = errdefs.DataLoss.Errorf("layer %s is not here", at)
		case l.Damaged != "":
			r.damage = errdefs.DataLoss.Errorf("layer %s is damaged: %s", at, l.Damaged)
		}
		if at == r.chain {
			r.size = l.Total
		}
		at = l.Parent
	}
	return nil
}

// configOf returns an image's configuration, verified when it is read first.
func (s *Store) configOf(ctx context.Context, tx *sql.Tx, id digest.Digest) (*config, error) {
	s.mu.RLock()
	known := s.configs[id]
	s.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	var raw []byte
	err := tx.QueryRowContext(ctx, `SELECT config FROM images WHERE id = ?`, id.String()).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noSuchImage(id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of %s: %w", id, err)
	}
	parsed, err := storedConfig(id, raw)
	if err == nil {
		s.remember(id, parsed)
	}
	return parsed, err
}

// storedConfig checks and parses a configuration as the database has it.
func storedConfig(id digest.Digest, raw []byte) (*config, error) {
	if got := digest.FromBytes(raw); got != id {
		return nil, errdefs.DataLoss.Errorf("image %s is damaged: the digest of its configuration is %s", id, got)
	}
	parsed, err := parseConfig(raw)
	if err != nil {
		return nil, errdefs.DataLoss.Errorf("image %s is damaged: %w", id, err)
	}
	return parsed, nil
}

func (s *Store) remember(id digest.Digest, parsed *config) {
	s.mu.Lock()
	s.configs[id] = parsed
	s.mu.Unlock()
}

func (s *Store) forget(id digest.Digest) {
	s.mu.Lock()
	delete(s.configs, id)
	s.mu.Unlock()
}

// image returns what a whole row stands for.
func (r *row) image() (Image, error) {
	if r.damage != nil {
		return Image{}, r.damage
	}
	image := Image{ID: r.id, Config: r.config.DockerOCIImage, Chain: r.chain, Size: r.size, Created: r.config.created()}
	for _, n := range r.names {
		image.References = append(image.References, n.familiar())
	}
	return image, nil
}
