package image

import (
	"context"
	"database/sql"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// validParent is the parent that an image is said to have, or "" if it is not
// here or not one. An archive may name any image: then that could not be removed
// as long as the other is there. A parent may have come before it in the archive,
// or long ago, or never.
func validParent(ctx context.Context, tx *sql.Tx, a addition) (digest.Digest, error) {
	if a.parent == "" {
		return "", nil
	}
	raw, err := stringsOf(ctx, tx, `SELECT config FROM images WHERE id = ?`, a.parent.String())
	if err != nil || len(raw) == 0 {
		return "", err
	}
	parent, err := parseConfig([]byte(raw[0]))
	if err != nil || !isStepAfter(a.config, parent) {
		return "", nil //nolint:nilerr // a damaged one is nobody's parent
	}
	return a.parent, nil
}

// isStepAfter is true of an image that is its parent and one step more, by
// dockerd's rule for histories and the same for layers.
func isStepAfter(c, parent *config) bool {
	steps, layers := len(parent.History), len(parent.RootFS.DiffIDs)
	if len(c.RootFS.DiffIDs) < layers || !slices.Equal(c.RootFS.DiffIDs[:layers], parent.RootFS.DiffIDs) {
		return false
	}
	added := len(c.RootFS.DiffIDs) - layers
	if steps == 0 && len(c.History) == 0 {
		return added == 1 // no image has to have a history
	}
	if len(c.History) != steps+1 || !slices.EqualFunc(c.History[:steps], parent.History, sameStep) {
		return false
	}
	return added == 1 && !c.History[steps].EmptyLayer || added == 0 && c.History[steps].EmptyLayer
}

// sameStep compares times by what they mean and not by how they are written.
func sameStep(a, b ocispec.History) bool {
	if a.Created != nil && b.Created != nil && a.Created.Equal(*b.Created) {
		a.Created, b.Created = nil, nil
	}
	return reflect.DeepEqual(a, b)
}
