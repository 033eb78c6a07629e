package layer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// isLayerDir is true of what newName makes. A row that names anything else is a
// foreign hand's, and nothing is removed by that name.
func isLayerDir(name string) bool { return len(name) == 16 && isHex(name) }

// isDigest is Validate, which takes a regular expression's time for each of
// thousands of rows.
func isDigest(d digest.Digest) bool {
	if sum, found := strings.CutPrefix(string(d), "sha256:"); found {
		return len(sum) == 64 && isHex(sum)
	}
	return d.Validate() == nil
}

// isHex is true of lower case digits.
func isHex(text string) bool { return strings.Trim(text, "0123456789abcdef") == "" }

// faultOf says what is wrong with a row by itself; "" if nothing is. Since a
// chain id is a digest over the one below, rows that fit make no circle.
func faultOf(l *Layer) string {
	switch {
	case !isDigest(l.Diff), l.Parent != "" && !isDigest(l.Parent), chainOn(l.Parent, l.Diff) != l.Chain:
		return "its row does not fit together: it has another chain id than its parent and its content make"
	case !isLayerDir(l.dir):
		return fmt.Sprintf("its row names no directory of a layer: %q", l.dir)
	}
	return ""
}

// Check reads every layer and compares it with its digests, and looks whether
// rows and directories agree; Open has looked at the rest. With repair, what is
// damaged is marked, so that the next pull of an image fetches it again; a mark
// on what is whole is removed; sizes are put right; what nothing stands behind is dropped.
func (s *Store) Check(ctx context.Context, repair bool) ([]store.Finding, error) {
	all, err := s.All(ctx)
	if err != nil {
		return nil, err
	}
	c := &check{store: s, ctx: ctx, Findings: store.Findings{DB: s.db, Repair: repair}, all: all}
	for _, l := range all {
		if err := c.layer(l); err != nil {
			return c.Found, fmt.Errorf("checking layer %s: %w", l.Chain, err)
		}
	}
	err = c.writables()
	return c.Found, err
}

// check is one call of Check.
type check struct {
	store *Store
	ctx   context.Context // of the call that the check is
	all   map[digest.Digest]Layer
	store.Findings
}

func (c *check) layer(l Layer) error {
	subject := "layer " + l.Chain.String()
	problem, whole := l.Damaged, false
	if !l.misfit {
		problem, whole = c.content(l)
	}
	if l.Damaged != "" && !whole {
		problem = l.Damaged // what was found first, and nothing speaks against
	}
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if problem != "" {
		return c.Find(c.ctx, subject, problem, "marked as damaged; pull or load its image again, or remove it", func(tx *sql.Tx) error {
			return c.store.mark(c.ctx, tx, l.Chain, problem)
		})
	}
	if l.Damaged != "" {
		return c.Find(c.ctx, subject, fmt.Sprintf("it is marked as damaged (%s), and its files are as they were", l.Damaged), "the mark was removed", func(tx *sql.Tx) error {
			return c.store.mark(c.ctx, tx, l.Chain, "")
		})
	}
	total := l.Size
	if l.Parent != "" {
		total += c.all[l.Parent].Total
	}
	if l.Size < 0 || total != l.Total {
		return c.Find(c.ctx, subject, fmt.Sprintf("its total size is %d, with its parents' it would be %d", l.Total, total), "put right", func(tx *sql.Tx) error {
			_, err := tx.ExecContext(c.ctx, `UPDATE layers SET total = ? WHERE driver = ? AND chain = ?`, total, c.store.Name(), l.Chain.String())
			return err
		})
	}
	return nil
}

// content reads a layer as a push would, and says what is wrong with it. whole
// means that all of it was read and is what its digest says.
func (c *check) content(l Layer) (problem string, whole bool) {
	if l.Parent != "" {
		if _, found := c.all[l.Parent]; !found {
			return fmt.Sprintf("the layer below it, %s, is not here", l.Parent), false
		}
	}
	verifier := l.Diff.Verifier()
	err := c.store.WriteTar(c.ctx, l.Chain, verifier)
	switch {
	case errdefs.KindOf(err) == errdefs.NotImplemented:
		return "", false // its tar cannot be put together again, whatever its files are
	case err != nil:
		return "its files cannot be read as they were: " + err.Error(), false
	case !verifier.Verified():
		return "its files have changed: their digest is another", false
	}
	return "", true
}

// mark records what is wrong with a layer. Its row and files stay.
func (s *Store) mark(ctx context.Context, tx *sql.Tx, chain digest.Digest, damage string) error {
	_, err := tx.ExecContext(ctx, `UPDATE layers SET damaged = ? WHERE driver = ? AND chain = ?`, damage, s.Name(), chain.String())
	return err
}

// writables looks for writable layers without a directory.
func (c *check) writables() error {
	var ids []string
	err := c.store.db.View(c.ctx, func(tx *sql.Tx) error {
		return eachString(c.ctx, tx, func(id string) { ids = append(ids, id) }, `SELECT id FROM writable_layers WHERE driver = ?`, c.store.Name())
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		subject := "writable layer " + id
		if !writableID.MatchString(id) {
			err = c.Find(c.ctx, subject, "its row has no id of a container", "dropped", func(tx *sql.Tx) error {
				_, err := tx.ExecContext(c.ctx, `DELETE FROM writable_layers WHERE driver = ? AND id = ?`, c.store.Name(), id)
				return err
			})
		} else if missing := c.store.driver.check(c.store.dirOf(id)); errors.Is(missing, fs.ErrNotExist) {
			// What the container wrote is lost; whoever lists containers says so.
			c.Found = append(c.Found, store.Finding{Subject: subject, Problem: "its directory is missing: remove the container"})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
