package layer

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// RegisterRequest says where a layer belongs.
type RegisterRequest struct {
	Parent digest.Digest // chain id below; "" for a bottom layer
	Diff   digest.Digest // what the uncompressed tar must hash to; "" if unknown
	Owner  string        // who needs it from the moment it exists: "work/<random>"

	// After is closed when the parent is there. Until then the layer is unpacked
	// if the driver can do that without. nil means that the parent is there.
	After <-chan struct{}
}

// Register unpacks a tar (plain or compressed) on top of a parent and returns
// the layer. With a known diff id and the layer already there, the stream is
// not read. Two calls for one layer leave one. On failure nothing is left.
func (s *Store) Register(ctx context.Context, req RegisterRequest, stream io.Reader) (Layer, error) {
	if req.Owner == "" {
		return Layer{}, errdefs.InvalidArgument.Errorf("registering a layer: no owner given")
	}
	if req.Diff != "" {
		if err := req.Diff.Validate(); err != nil {
			return Layer{}, errdefs.InvalidArgument.Errorf("diff id %q: %w", req.Diff, err)
		}
		unlock, err := s.keys.lock(ctx, "layer "+chainOn(req.Parent, req.Diff).String())
		if err != nil {
			return Layer{}, err
		}
		defer unlock()
		if present, err := s.holdPresent(ctx, chainOn(req.Parent, req.Diff), req.Owner); err != nil || present.Chain != "" {
			return present, err
		}
	}
	layer, err := s.unpackNew(ctx, req, stream)
	if err != nil {
		return Layer{}, fmt.Errorf("registering layer: %w", err)
	}
	return layer, nil
}

// chainOn is the image specification's chain id of a layer on its parent.
func chainOn(parent, diff digest.Digest) digest.Digest {
	if parent == "" {
		return diff
	}
	return identity.ChainID([]digest.Digest{parent, diff})
}

// holdPresent holds the layer if it is there and whole.
func (s *Store) holdPresent(ctx context.Context, chain digest.Digest, owner string) (present Layer, err error) {
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		found, err := s.query(ctx, tx, `AND chain = ? AND damaged = ''`, chain.String())
		if err != nil || len(found) == 0 {
			return err
		}
		present = found[0]
		return s.HoldIn(ctx, tx, chain, owner)
	})
	return present, err
}

// unpackNew goes through the states of doc.go: tmp directory, final name, row.
func (s *Store) unpackNew(ctx context.Context, req RegisterRequest, stream io.Reader) (l Layer, err error) {
	var below []Layer
	early := req.After == nil || !s.unpacksApart()
	if early {
		if below, err = s.parents(ctx, req); err != nil {
			return Layer{}, err
		}
	}
	var undo errdefs.Undo
	defer undo.OnError(&err)
	staging := filepath.Join(s.root, newStagingName())
	undo.Add("remove "+staging, func(context.Context) error { return s.driver.remove(staging) })
	if err := s.driver.stage(ctx, staging, s.paths(below)); err != nil {
		return Layer{}, fmt.Errorf("making a directory: %w", err)
	}
	failpoint.At("layer-staged")
	content, err := unpack(ctx, staging, s.driver.whiteouts(), stream)
	if err != nil {
		return Layer{}, err
	}
	if req.Diff != "" && content.diff != req.Diff {
		return Layer{}, errdefs.InvalidArgument.Errorf("layers from manifest don't match image configuration: the tar's digest is %s, expected %s", content.diff, req.Diff)
	}
	failpoint.At("layer-unpacked")
	if !early {
		if below, err = s.parents(ctx, req); err != nil {
			return Layer{}, err
		}
	}
	if s.unpacksApart() {
		if err := content.implied.settle(filepath.Join(staging, "diff"), s.paths(below)); err != nil {
			return Layer{}, err
		}
	}
	return s.adopt(ctx, req, content, below, staging)
}

// unpacksApart says whether a layer's directory holds what is in its own tar
// and nothing from below.
func (s *Store) unpacksApart() bool { return s.driver.whiteouts() == whiteoutNodes }

// parents waits for the layers below.
func (s *Store) parents(ctx context.Context, req RegisterRequest) ([]Layer, error) {
	if req.After != nil {
		select {
		case <-req.After:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	below, err := s.Chain(ctx, req.Parent)
	if err != nil {
		return nil, fmt.Errorf("looking up the parent: %w", err)
	}
	return below, nil
}

// adopt gives what was unpacked its name and its row. The caller removes
// staging if that fails.
func (s *Store) adopt(ctx context.Context, req RegisterRequest, content content, below []Layer, staging string) (l Layer, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	l = Layer{Chain: chainOn(req.Parent, content.diff), Diff: content.diff, Parent: req.Parent,
		Size: content.size, Total: content.size, Created: time.Now(), dir: newName()}
	if len(below) > 0 {
		l.Total += below[len(below)-1].Total
	}
	if err := s.driver.unmount(staging); err != nil {
		return Layer{}, err
	}
	final := filepath.Join(s.root, l.dir)
	if err := os.Rename(staging, final); err != nil {
		return Layer{}, err
	}
	undo.Add("remove "+final, func(context.Context) error { return s.driver.remove(final) })
	failpoint.At("layer-renamed")
	stored, replaced, err := s.insert(ctx, l, req.Owner)
	if err != nil {
		return Layer{}, err
	}
	failpoint.At("layer-recorded")
	if replaced != "" {
		s.drop(replaced)
	}
	return stored, nil
}

// insert writes the row and the hold. Another call may have been faster with
// the same content: then its layer stays, and ours is the one to be replaced.
// A damaged layer gets our directory.
func (s *Store) insert(ctx context.Context, l Layer, owner string) (stored Layer, replaced string, err error) {
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		stored, replaced = l, ""
		found, err := s.query(ctx, tx, `AND chain = ?`, l.Chain.String())
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			_, err = tx.ExecContext(ctx, `INSERT INTO layers (driver, chain, diff, parent, dir, size, total, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
				s.Name(), l.Chain.String(), l.Diff.String(), orNull(l.Parent), l.dir, l.Size, l.Total, l.Created.UnixNano())
		case found[0].Damaged == "":
			stored, replaced = found[0], l.dir
		default:
			replaced = found[0].dir
			_, err = tx.ExecContext(ctx, `UPDATE layers SET diff = ?, parent = ?, dir = ?, size = ?, total = ?, damaged = '' WHERE driver = ? AND chain = ?`,
				l.Diff.String(), orNull(l.Parent), l.dir, l.Size, l.Total, s.Name(), l.Chain.String())
		}
		if err != nil {
			return fmt.Errorf("recording the layer: %w", err)
		}
		return s.HoldIn(ctx, tx, l.Chain, owner)
	})
	return stored, replaced, err
}

// newName is a fresh directory name. It is short because older kernels want
// the names of all layers in one page.
func newName() string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	return hex.EncodeToString(random[:])
}

// newStagingName is a fresh name of a directory that no row will ever speak of.
func newStagingName() string { return "tmp-" + newName() }
