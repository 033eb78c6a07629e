package image

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	apievents "github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// RemoveOptions say how far a removal may go.
type RemoveOptions struct {
	Force   bool            // also if stopped containers use it, or it has several names
	NoPrune bool            // keep nameless images it was built on
	Running map[string]bool // ids of containers that run now; nothing removes their image
}

// Remove removes a name of an image, and the image with its last name. Without
// force an image in use stays, with force only one that a running container
// uses. It returns what went, as `docker rmi` prints it.
//
// The rules and texts are dockerd's (daemon/images/image_delete.go).
func (s *Store) Remove(ctx context.Context, ref string, opts RemoveOptions) ([]apiimage.DeleteResponse, error) {
	removed, _, err := s.remove(ctx, ref, opts)
	return removed, err
}

// remove is Remove that also returns the layers that went.
func (s *Store) remove(ctx context.Context, ref string, opts RemoveOptions) ([]apiimage.DeleteResponse, []layer.Layer, error) {
	var r *removal
	var gone []layer.Layer
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		id, by, err := lookUp(ctx, tx, ref)
		if err != nil {
			return err
		}
		r = &removal{store: s, ctx: ctx, tx: tx, opts: opts}
		if err := r.run(id, by, ref); err != nil {
			return err
		}
		gone, err = s.layers.CollectIn(ctx, tx, r.chains)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	failpoint.At("image-removed")
	for _, tell := range r.events {
		tell()
	}
	s.layers.Drop(gone)
	for _, l := range gone {
		r.records = append(r.records, apiimage.DeleteResponse{Deleted: l.Chain.String()})
	}
	return r.records, gone, nil
}

// removal is one Remove, within its transaction.
type removal struct {
	store   *Store
	ctx     context.Context // of the call that the removal is
	tx      *sql.Tx
	opts    RemoveOptions
	chains  []digest.Digest // uppermost layers of what was removed
	records []apiimage.DeleteResponse
	events  []func() // told after the commit
}

// run removes by name if the image was found by one, else by id.
func (r *removal) run(id digest.Digest, by name, ref string) error {
	row, err := r.store.read(r.ctx, r.tx, nil, id)
	if err != nil {
		return err
	}
	untagged := false
	if by != "" {
		if !r.opts.Force && isSingle(row.names) {
			if err := r.unused(row, ref); err != nil {
				return err
			}
		}
		if row.names, err = r.untag(row, by); err != nil || len(row.names) > 0 {
			return err
		}
		untagged = true
	} else if isSingle(row.names) {
		if err := r.conflict(row, !r.opts.Force, false); err != nil {
			return err
		}
		if err := r.untagAll(row); err != nil {
			return err
		}
	}
	return r.delete(row, untagged)
}

// isSingle is true if all names are of one repository and one at most is a tag.
func isSingle(names []name) bool {
	tags := 0
	for _, n := range names {
		if n.repository() != names[0].repository() {
			return false
		}
		if !n.isDigest() {
			tags++
		}
	}
	return tags <= 1
}

// unused refuses to take the last name from an image that a container uses: it
// would stay, nameless, and need force anyway.
func (r *removal) unused(row *row, ref string) error {
	using, err := holders(r.ctx, r.tx, row.id)
	if err != nil || len(using) == 0 {
		return err
	}
	return errdefs.Conflict.Coded(errdefs.ImageInUse, row.id.String(),
		"conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
		ref, shortID(containerOf(using[0])), shortID(row.id.String()))
}

// containerOf is the id in the owner "container/<id>".
func containerOf(owner string) string { return strings.TrimPrefix(owner, "container/") }

// untag removes a name, and with the last tag of a repository that repository's
// digests. It returns the names left.
func (r *removal) untag(row *row, n name) (left []name, err error) {
	if err := r.dropName(row, n); err != nil {
		return nil, err
	}
	lastTag := !n.isDigest()
	for _, other := range row.names {
		if other != n && !other.isDigest() && other.repository() == n.repository() {
			lastTag = false
		}
	}
	for _, other := range row.names {
		switch {
		case other == n:
		case lastTag && other.isDigest() && other.repository() == n.repository():
			if err := r.dropName(row, other); err != nil {
				return nil, err
			}
		default:
			left = append(left, other)
		}
	}
	return left, nil
}

func (r *removal) untagAll(row *row) error {
	for _, n := range row.names {
		if err := r.dropName(row, n); err != nil {
			return err
		}
	}
	row.names = nil
	return nil
}

func (r *removal) dropName(row *row, n name) error {
	if _, err := r.tx.ExecContext(r.ctx, `DELETE FROM image_names WHERE name = ?`, string(n)); err != nil {
		return fmt.Errorf("removing the name %s: %w", n, err)
	}
	r.records = append(r.records, apiimage.DeleteResponse{Untagged: n.familiar()})
	r.tell(apievents.ActionUnTag, row)
	return nil
}

func (r *removal) tell(action apievents.Action, row *row) {
	id, labels := row.id.String(), row.labels()
	r.events = append(r.events, func() { r.store.publish(action, id, id, labels) })
}

// delete removes an image and then nameless ones it was built on. Quietly means
// that something has been removed already: then what is in use just stays.
func (r *removal) delete(row *row, quietly bool) error {
	if err := r.conflict(row, !r.opts.Force, true); err != nil {
		if quietly && errdefs.KindOf(err) == errdefs.Conflict {
			return nil
		}
		return err
	}
	if err := r.untagAll(row); err != nil {
		return err
	}
	for _, statement := range []string{`DELETE FROM image_holds WHERE image = ?`, `DELETE FROM images WHERE id = ?`} {
		if _, err := r.tx.ExecContext(r.ctx, statement, row.id.String()); err != nil {
			return fmt.Errorf("removing image %s: %w", row.id, err)
		}
	}
	if err := r.store.layers.ReleaseIn(r.ctx, r.tx, owner(row.id)); err != nil {
		return fmt.Errorf("releasing the layers of %s: %w", row.id, err)
	}
	r.records = append(r.records, apiimage.DeleteResponse{Deleted: row.id.String()})
	r.chains = append(r.chains, row.chain)
	r.tell(apievents.ActionDelete, row)
	r.events = append(r.events, func() { r.store.forget(row.id) })
	if r.opts.NoPrune || row.parent == "" {
		return nil
	}
	return r.deleteParent(row.parent)
}

// deleteParent removes a parent that nothing else needs.
func (r *removal) deleteParent(id digest.Digest) error {
	if err := mustExist(r.ctx, r.tx, id); errdefs.KindOf(err) == errdefs.NotFound {
		return nil
	}
	parent, err := r.store.read(r.ctx, r.tx, nil, id)
	if err != nil {
		return err
	}
	child := removal{store: r.store, ctx: r.ctx, tx: r.tx, opts: RemoveOptions{Running: r.opts.Running}}
	if err := child.delete(parent, true); err != nil {
		return err
	}
	r.records = append(r.records, child.records...)
	r.chains = append(r.chains, child.chains...)
	r.events = append(r.events, child.events...)
	return nil
}

// conflict says what is in the way of removing an image: always images built
// on it and running containers; softly also stopped ones and, if names says so,
// names. Force overcomes the soft ones.
func (r *removal) conflict(row *row, softly, names bool) error {
	children, err := stringsOf(r.ctx, r.tx, `SELECT id FROM images WHERE parent = ?`, row.id.String())
	if err != nil {
		return err
	}
	using, err := holders(r.ctx, r.tx, row.id)
	if err != nil {
		return err
	}
	if len(children) > 0 {
		return conflicts(row, true, "image has dependent child images")
	}
	for _, owner := range using {
		if id := containerOf(owner); r.opts.Running[id] {
			return conflicts(row, true, "image is being used by running container "+shortID(id))
		}
	}
	if softly && names && len(row.names) > 0 {
		return conflicts(row, false, "image is referenced in multiple repositories")
	}
	if softly && len(using) > 0 {
		return conflicts(row, false, "image is being used by stopped container "+shortID(containerOf(using[0])))
	}
	return nil
}

func conflicts(row *row, hard bool, why string) error {
	force := "must be forced"
	if hard {
		force = "cannot be forced"
	}
	return errdefs.Conflict.Coded(errdefs.ImageInUse, row.id.String(),
		"conflict: unable to delete %s (%s) - %s", shortID(row.id.String()), force, why)
}
