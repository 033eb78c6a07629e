package image

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/proto/errdefs"
)

// Resolve finds an image by name[:tag], name@digest, id, or beginning of an id,
// in dockerd's order: a name before an id that looks like it.
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	found, err := s.find(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	return found.row.image()
}

// Means returns the id of the image that each of refs means now, without those
// that mean none.
func (s *Store) Means(ctx context.Context, refs []string) (map[string]digest.Digest, error) {
	means := map[string]digest.Digest{}
	err := s.db.View(ctx, func(tx *sql.Tx) error {
		for _, ref := range refs {
			id, _, err := lookUp(ctx, tx, ref)
			if err == nil {
				means[ref] = id
			} else if kind := errdefs.KindOf(err); kind != errdefs.NotFound && kind != errdefs.InvalidArgument {
				return err
			}
		}
		return nil
	})
	return means, err
}

// match is an image that a reference led to.
type match struct {
	*row
	by name // the name, "" if it was found by its id
}

// find resolves ref to a row, which may be damaged.
func (s *Store) find(ctx context.Context, ref string) (found match, err error) {
	layers := func(tx *sql.Tx, chain digest.Digest) (layer.Layer, bool, error) { return s.layers.Find(ctx, tx, chain) }
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		id, by, err := lookUp(ctx, tx, ref)
		if err != nil {
			return err
		}
		r, err := s.read(ctx, tx, layers, id)
		found = match{r, by}
		return err
	})
	return found, err
}

// suits refuses an image that is for none of the platforms; none means any.
func (m match) suits(ref string, platforms []ocispec.Platform) error {
	has := m.config.Platform
	for i, wanted := range platforms {
		if suits(wanted, has) {
			return nil
		}
		if i == len(platforms)-1 {
			return errdefs.NotFound.Errorf("image with reference %s was found but does not match the specified platform: wanted %s, actual: %s",
				ref, platformText(wanted), platformText(has))
		}
	}
	return nil
}

func platformText(p ocispec.Platform) string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

// read reads the row of an image that is there, or of which names are.
func (s *Store) read(ctx context.Context, tx *sql.Tx, layers layerOf, id digest.Digest) (*row, error) {
	rows, err := s.readRows(ctx, tx, layers, columns+`WHERE id = ?`, id.String())
	if err != nil {
		return nil, err
	}
	found := len(rows) > 0
	if !found {
		rows = []*row{lost(id)}
	}
	if err := readNames(ctx, tx, &rows, false); err != nil {
		return nil, err
	}
	if !found && len(rows[0].names) == 0 {
		return nil, noSuchImage(id.String())
	}
	return rows[0], nil
}

// lookUp returns the id that ref means, and the name if it is one.
func lookUp(ctx context.Context, tx *sql.Tx, ref string) (digest.Digest, name, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return "", "", errdefs.InvalidArgument.Errorf("invalid reference format: %q: %w", ref, err)
	}
	if named, is := parsed.(reference.Named); is {
		for _, n := range spellings(named) {
			var id digest.Digest
			err := tx.QueryRowContext(ctx, `SELECT image FROM image_names WHERE name = ?`, string(n)).Scan(&id)
			if err == nil {
				return id, n, nil
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return "", "", fmt.Errorf("looking up %s: %w", n, err)
			}
		}
	}
	id, err := byPrefix(ctx, tx, ref)
	if err != nil {
		return "", "", err
	}
	if id == "" {
		return "", "", noSuchImage(ref)
	}
	return id, "", nil
}

// spellings are the stored names that a reference can mean: a digest is more
// exact than a tag, and no tag is the tag latest.
func spellings(named reference.Named) []name {
	if digested, is := named.(reference.Digested); is {
		canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return nil
		}
		return []name{name(canonical.String())}
	}
	return []name{name(reference.TagNameOnly(named).String())}
}

var hexPrefix = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// byPrefix returns the only image whose id begins so, "" for none.
func byPrefix(ctx context.Context, tx *sql.Tx, ref string) (digest.Digest, error) {
	prefix := strings.TrimPrefix(ref, "sha256:")
	if !hexPrefix.MatchString(prefix) {
		return "", nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT id FROM images WHERE id >= ? AND id < ? LIMIT 2`, "sha256:"+prefix, "sha256:"+prefix+"g")
	if err != nil {
		return "", fmt.Errorf("looking up %s: %w", ref, err)
	}
	defer rows.Close()
	var ids []digest.Digest
	for rows.Next() {
		var id digest.Digest
		if err := rows.Scan(&id); err != nil {
			return "", fmt.Errorf("looking up %s: %w", ref, err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	switch len(ids) {
	case 0:
		return "", nil
	case 1:
		return ids[0], nil
	}
	return "", errdefs.InvalidArgument.Coded(errdefs.AmbiguousPrefix, ref, "ambiguous image id prefix %q: it is the beginning of several images' ids", ref)
}

// noSuchImage words ref as dockerd does: a name with its tag, an id as it is.
func noSuchImage(ref string) error {
	subject := ref
	if parsed, err := reference.ParseAnyReference(ref); err == nil {
		if named, is := parsed.(reference.Named); is {
			parsed = reference.TagNameOnly(named)
		}
		subject = reference.FamiliarString(parsed)
	}
	return errdefs.NotFound.Coded(errdefs.NoSuchImage, subject, "No such image: %s", subject)
}
