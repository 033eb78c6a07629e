package image

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/store"
)

// Check looks at every image's row, names, manifests and hold on its layers;
// the layers' own check comes before. With repair, what is damaged stays listed
// until it is pulled again or removed, what it lacks is added, and what means
// nothing is dropped.
func (s *Store) Check(ctx context.Context, repair bool) ([]store.Finding, error) {
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	c := &check{store: s, ctx: ctx, Findings: store.Findings{DB: s.db, Repair: repair}, images: map[string]*row{}}
	if c.holds, err = s.layers.Holds(ctx); err != nil {
		return nil, err
	}
	for _, r := range rows {
		c.images[owner(r.id)] = r
		if err := c.image(r); err != nil {
			return c.Found, fmt.Errorf("checking image %s: %w", r.id, err)
		}
	}
	for _, step := range []func() error{c.leftHolds, c.manifests, c.blobs} {
		if err := step(); err != nil {
			return c.Found, err
		}
	}
	if repair {
		_, err = s.layers.Collect(ctx)
	}
	return c.Found, err
}

// check is one call of Check.
type check struct {
	store  *Store
	ctx    context.Context // of the call that the check is
	images map[string]*row // by the owner of their holds
	holds  map[string][]digest.Digest
	store.Findings
}

func (c *check) exec(statement string, args ...any) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.ExecContext(c.ctx, statement, args...)
		return err
	}
}

func (c *check) image(r *row) error {
	subject := "image " + r.id.String()
	if len(r.names) > 0 {
		subject += " (" + r.names[0].familiar() + ")"
	}
	if r.id.Validate() != nil {
		return c.Find(c.ctx, subject, "its row has no digest for an id", "removed", func(tx *sql.Tx) error { return c.drop(tx, r) })
	}
	for _, n := range r.names {
		if n.parse() == nil {
			if err := c.Find(c.ctx, subject, fmt.Sprintf("%q is no name of an image", n), "dropped", c.exec(`DELETE FROM image_names WHERE name = ?`, string(n))); err != nil {
				return err
			}
		}
	}
	if r.damage != nil {
		return c.Find(c.ctx, subject, r.damage.Error(), "stays listed as damaged; pull or load it again, or remove it", func(*sql.Tx) error { return nil })
	}
	if r.chain != "" && !slices.Contains(c.holds[owner(r.id)], r.chain) {
		return c.Find(c.ctx, subject, "it does not hold its layers, which would go with the next removal", "holds them", func(tx *sql.Tx) error {
			return c.store.layers.HoldIn(c.ctx, tx, r.chain, owner(r.id))
		})
	}
	return nil
}

// drop removes a row that nothing can name.
func (c *check) drop(tx *sql.Tx, r *row) error {
	for _, statement := range []string{`DELETE FROM image_names WHERE image = ?`, `DELETE FROM image_holds WHERE image = ?`, `DELETE FROM images WHERE id = ?`} {
		if err := c.exec(statement, r.id.String())(tx); err != nil {
			return err
		}
	}
	return c.store.layers.ReleaseIn(c.ctx, tx, owner(r.id))
}

// leftHolds looks for layers held by images that are not there.
func (c *check) leftHolds() error {
	for _, owner := range slices.Sorted(maps.Keys(c.holds)) {
		if !strings.HasPrefix(owner, "image/") || c.images[owner] != nil {
			continue
		}
		err := c.Find(c.ctx, "image "+strings.TrimPrefix(owner, "image/"), "only its layers are left", "released", func(tx *sql.Tx) error {
			return c.store.layers.ReleaseIn(c.ctx, tx, owner)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// manifests drops those that are not what their digest says: others are made.
func (c *check) manifests() error {
	type key struct{ image, digest string }
	var bad []key
	err := c.store.db.View(c.ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(c.ctx, `SELECT image, digest, raw FROM image_manifests`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k key
			var raw []byte
			if err := rows.Scan(&k.image, &k.digest, &raw); err != nil {
				return err
			}
			if d := digest.Digest(k.digest); d.Validate() != nil || d.Algorithm().FromBytes(raw) != d {
				bad = append(bad, k)
			}
		}
		return rows.Err()
	})
	for _, k := range bad {
		if err == nil {
			err = c.Find(c.ctx, "image "+k.image, "its manifest "+k.digest+" has another digest", "dropped; a push makes a new one",
				c.exec(`DELETE FROM image_manifests WHERE image = ? AND digest = ?`, k.image, k.digest))
		}
	}
	return err
}

// blobs drops what cannot be a registry's blob.
func (c *check) blobs() error {
	var bad []string
	err := c.store.db.View(c.ctx, func(tx *sql.Tx) error {
		known, err := stringsOf(c.ctx, tx, `SELECT DISTINCT digest FROM layer_blobs`)
		for _, d := range known {
			if digest.Digest(d).Validate() != nil {
				bad = append(bad, d)
			}
		}
		return err
	})
	for _, d := range bad {
		if err == nil {
			err = c.Find(c.ctx, "blob "+d, "it is no digest", "forgotten", c.exec(`DELETE FROM layer_blobs WHERE digest = ?`, d))
		}
	}
	return err
}
