package image

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/failpoint"
)

// work returns the owner under which a call holds the layers it makes.
func work() string { return "work/" + rand.Text() }

// addition is an image about to be stored. Its layers are there and held.
type addition struct {
	raw    []byte // the configuration, byte for byte
	config *config
	parent digest.Digest
	names  []name
	more   func(tx *sql.Tx, id digest.Digest) error // what else appears with it, or nil
}

// moved is a name that was another image's until now.
type moved struct {
	name   name
	before digest.Digest
}

// add stores an image with its names and its hold on the layers, all or
// nothing. An image that is there already only gets the names. When add returns,
// not even a power cut undoes it: the layers' bytes are on disk before the row
// that needs them, and the row after it.
func (s *Store) add(ctx context.Context, a addition) (id digest.Digest, taken []moved, err error) {
	if err := s.layers.Sync(); err != nil {
		return "", nil, fmt.Errorf("storing the layers of an image: %w", err)
	}
	failpoint.At("layers-synced")
	if id, taken, err = s.insert(ctx, a); err != nil {
		return "", nil, fmt.Errorf("storing image %s: %w", id, err)
	}
	failpoint.At("image-stored")
	if err := s.db.Sync(); err != nil {
		return "", nil, err
	}
	failpoint.At("image-synced")
	return id, taken, nil
}

// insert is the transaction that makes an image.
func (s *Store) insert(ctx context.Context, a addition) (id digest.Digest, taken []moved, err error) {
	id = digest.FromBytes(a.raw)
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		taken = nil
		_, err := tx.ExecContext(ctx, `INSERT INTO images (id, config, chain, parent, created, tagged) VALUES (?, ?, ?, ?, ?, 0)
			ON CONFLICT (id) DO UPDATE SET config = excluded.config, chain = excluded.chain`, // heals a damaged one
			id.String(), a.raw, a.config.chain.String(), a.parent.String(), time.Now().UnixNano())
		if err != nil {
			return err
		}
		if err := s.layers.HoldIn(ctx, tx, a.config.chain, owner(id)); err != nil {
			return err
		}
		for _, n := range a.names {
			before, err := giveName(ctx, tx, n, id)
			if err != nil {
				return err
			}
			if before != "" && before != id {
				taken = append(taken, moved{n, before})
			}
		}
		if a.more == nil {
			return nil
		}
		return a.more(tx, id)
	})
	return id, taken, err
}

// owner is the name under which an image holds its layers.
func owner(id digest.Digest) string { return "image/" + id.String() }

// giveName names the image and notes when.
func giveName(ctx context.Context, tx *sql.Tx, n name, id digest.Digest) (before digest.Digest, err error) {
	if before, err = setName(ctx, tx, n, id); err != nil {
		return "", err
	}
	_, err = tx.ExecContext(ctx, `UPDATE images SET tagged = ? WHERE id = ?`, time.Now().UnixNano(), id.String())
	return before, err
}
