package layer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/proto/errdefs"
)

// CreateOptions are the options of a container's writable layer.
type CreateOptions struct {
	StorageOpt map[string]string // HostConfig.StorageOpt: size
}

// writableID keeps ids usable as names of a directory and apart from what else
// lies there; a container's 64 hex digits pass.
var writableID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.]{0,127}$`)

// Create makes the writable layer id on the read-only layer parent ("" for an
// empty root). Again with the same parent it does nothing.
func (s *Store) Create(ctx context.Context, id string, parent digest.Digest, opts CreateOptions) (err error) {
	if !writableID.MatchString(id) {
		return errdefs.InvalidArgument.Errorf("invalid id %q for a writable layer: expected letters, digits, dots and underscores", id)
	}
	size, err := sizeOf(s.name, opts.StorageOpt)
	if err != nil {
		return err
	}
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	present, _, err := s.writable(ctx, id)
	if err == nil {
		if present != parent {
			return errdefs.AlreadyExists.Errorf("writable layer %s exists on %s", id, present)
		}
		return nil
	}
	if errdefs.KindOf(err) != errdefs.NotFound {
		return err
	}
	lowers, err := s.lowersOf(ctx, parent)
	if err != nil {
		return fmt.Errorf("creating writable layer %s: %w", id, err)
	}
	return s.create(ctx, id, parent, lowers, size)
}

// create makes the directory, then the row: what has no row is swept.
func (s *Store) create(ctx context.Context, id string, parent digest.Digest, lowers []string, size int64) (err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	dir := filepath.Join(s.root, id)
	undo.Add("remove "+dir, func(context.Context) error { return s.driver.remove(dir) })
	if err := s.driver.create(ctx, dir, lowers, size); err != nil {
		return fmt.Errorf("creating writable layer %s: %w", id, err)
	}
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO writable_layers (driver, id, parent, created) VALUES (?, ?, ?, ?)`,
			s.Name(), id, orNull(parent), time.Now().UnixNano())
		return err
	})
	if err != nil {
		return fmt.Errorf("recording writable layer %s: %w", id, err)
	}
	return nil
}

// Mount joins the writable layer with what is below and returns the path of
// the whole. Again, also in a new process, it returns the mount that is there.
func (s *Store) Mount(ctx context.Context, id string) (rootfs string, err error) {
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	_, lowers, err := s.writable(ctx, id)
	if err != nil {
		return "", err
	}
	return s.driver.mount(ctx, filepath.Join(s.root, id), lowers)
}

// Unmount undoes Mount. Nothing mounted, or no such layer, is no error.
func (s *Store) Unmount(ctx context.Context, id string) error {
	if !writableID.MatchString(id) {
		return nil
	}
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return s.unmount(id)
}

// Remove unmounts and removes the writable layer and what only it needed. No
// such layer is no error.
func (s *Store) Remove(ctx context.Context, id string) error {
	if !writableID.MatchString(id) {
		return nil
	}
	unlock, err := s.keys.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.unmount(id); err != nil {
		return fmt.Errorf("removing writable layer %s: %w", id, err)
	}
	var had bool
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM writable_layers WHERE driver = ? AND id = ?`, s.Name(), id)
		if err != nil {
			return err
		}
		rows, err := result.RowsAffected()
		had = rows > 0
		return err
	})
	if err != nil {
		return fmt.Errorf("removing writable layer %s: %w", id, err)
	}
	if !had {
		return nil
	}
	s.discard(id)
	_, err = s.Collect(ctx)
	return err
}

// Size returns the bytes that the writable layer takes by itself.
func (s *Store) Size(ctx context.Context, id string) (rw int64, err error) {
	_, lowers, err := s.writable(ctx, id)
	if err != nil {
		return 0, err
	}
	return s.driver.size(ctx, filepath.Join(s.root, id), lowers)
}

// Describe returns what Docker's inspect of a container shows as GraphDriver.
func (s *Store) Describe(ctx context.Context, id string) (map[string]string, error) {
	_, lowers, err := s.writable(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.driver.describe(filepath.Join(s.root, id), lowers, true), nil
}

// DescribeLayer is Describe for a read-only layer.
func (s *Store) DescribeLayer(ctx context.Context, chain digest.Digest) (map[string]string, error) {
	layers, err := s.Chain(ctx, chain)
	if err != nil || len(layers) == 0 {
		return nil, err
	}
	paths := s.paths(layers)
	return s.driver.describe(paths[0], paths[1:], false), nil
}

// writable reads a writable layer's row: its parent, and the directories below.
func (s *Store) writable(ctx context.Context, id string) (parent digest.Digest, lowers []string, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		row := tx.QueryRowContext(ctx, `SELECT COALESCE(parent, '') FROM writable_layers WHERE driver = ? AND id = ?`, s.Name(), id)
		err := row.Scan(&parent)
		if errors.Is(err, sql.ErrNoRows) {
			return errdefs.NotFound.Errorf("no writable layer %s", id)
		}
		if err != nil {
			return fmt.Errorf("reading writable layer %s: %w", id, err)
		}
		layers, err := s.chain(ctx, tx, parent)
		lowers = s.paths(layers)
		return err
	})
	return parent, lowers, err
}

func (s *Store) lowersOf(ctx context.Context, parent digest.Digest) ([]string, error) {
	layers, err := s.Chain(ctx, parent)
	return s.paths(layers), err
}

// isGone reports whether err says that a file went away meanwhile.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) }
