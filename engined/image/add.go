package image

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
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
	parent digest.Digest // as somebody says
	names  []name
	more   func(tx *sql.Tx, id digest.Digest) error // what else appears with it, or nil
}

// moved is a name that was another image's until now.
type moved struct {
	name   name
	before digest.Digest
}

// added is an image that was stored.
type added struct {
	id    digest.Digest
	taken []moved
}

// add is addAll for one image.
func (s *Store) add(ctx context.Context, a addition) (digest.Digest, error) {
	stored, err := s.addAll(ctx, []addition{a})
	if err != nil {
		return "", err
	}
	return stored[0].id, nil
}

// addAll stores images with their names and their holds on the layers, each all
// or nothing, until one fails. One that is there already only gets the names.
// Not even a power cut undoes what addAll returns: the layers' bytes are on disk
// before the rows that need them, and these after it.
func (s *Store) addAll(ctx context.Context, all []addition) (stored []added, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	if err := s.layers.Sync(); err != nil {
		return nil, fmt.Errorf("storing the layers of an image: %w", err)
	}
	failpoint.At("layers-synced")
	for _, a := range all {
		var one added
		if one.id, one.taken, err = s.insert(ctx, a); err != nil {
			err = fmt.Errorf("storing image %s: %w", digest.FromBytes(a.raw), err)
			break
		}
		failpoint.At("image-stored")
		stored = append(stored, one)
	}
	if unsynced := s.db.Sync(); unsynced != nil {
		return nil, errors.Join(err, unsynced)
	}
	failpoint.At("image-synced")
	return stored, err
}

// insert is the transaction that makes an image.
func (s *Store) insert(ctx context.Context, a addition) (id digest.Digest, taken []moved, err error) {
	id = digest.FromBytes(a.raw)
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		taken = nil
		parent, err := validParent(ctx, tx, a)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO images (id, config, chain, parent, created, tagged) VALUES (?, ?, ?, ?, ?, 0)
			ON CONFLICT (id) DO UPDATE SET config = excluded.config, chain = excluded.chain`, // heals a damaged one
			id.String(), a.raw, a.config.chain.String(), parent.String(), time.Now().UnixNano())
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
