package image

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/proto/errdefs"
)

// name is a name of an image in its normalized form: with registry, and with
// either a tag or a digest.
type name string

// parse returns the parts of a name. Names are checked before they are stored;
// one that a foreign hand put there has no parts.
func (n name) parse() reference.Named {
	parsed, err := reference.ParseNormalizedNamed(string(n))
	if err != nil {
		return nil
	}
	return parsed
}

func (n name) familiar() string {
	if parsed := n.parse(); parsed != nil {
		return reference.FamiliarString(parsed)
	}
	return string(n)
}

// repository is the name without tag and digest.
func (n name) repository() string {
	if parsed := n.parse(); parsed != nil {
		return parsed.Name()
	}
	return string(n)
}

// isDigest tells repo@sha256:... from repo:tag; a tag cannot hold an @.
func (n name) isDigest() bool { return strings.Contains(string(n), "@") }

// readNames gives each row its names, sorted. With all rows, an image that has
// names and no row gets one that says so.
func readNames(ctx context.Context, tx *sql.Tx, rows *[]*row, all bool) error {
	byID := make(map[digest.Digest]*row, len(*rows))
	for _, r := range *rows {
		byID[r.id] = r
	}
	query, args := `SELECT name, image FROM image_names ORDER BY name`, []any{}
	if !all {
		query, args = `SELECT name, image FROM image_names WHERE image = ? ORDER BY name`, []any{(*rows)[0].id.String()}
	}
	found, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("reading image names: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var n name
		var id digest.Digest
		if err := found.Scan(&n, &id); err != nil {
			return fmt.Errorf("reading an image name: %w", err)
		}
		r := byID[id]
		if r == nil {
			r = lost(id)
			byID[id] = r
			*rows = append(*rows, r)
		}
		r.names = append(r.names, n)
	}
	return found.Err()
}

// lost stands for an image of which only names are left.
func lost(id digest.Digest) *row {
	return &row{id: id, damage: errdefs.DataLoss.Errorf("image %s is damaged: its configuration is missing", id)}
}

// parseTag checks a name that a caller gives an image. A digest cannot be
// given: it is the content's.
func parseTag(repository, tag string) (name, error) {
	parsed, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return "", errdefs.InvalidArgument.Errorf("invalid reference format: %q: %w", repository, err)
	}
	if tag != "" {
		if parsed, err = reference.WithTag(reference.TrimNamed(parsed), tag); err != nil {
			return "", errdefs.InvalidArgument.Errorf("invalid tag %q: %w", tag, err)
		}
	}
	if _, digested := parsed.(reference.Digested); digested {
		return "", errdefs.InvalidArgument.Errorf("refusing to create a tag with a digest reference")
	}
	tagged := reference.TagNameOnly(parsed)
	if reference.FamiliarName(tagged) == "sha256" { // would read as an id
		return "", errdefs.InvalidArgument.Errorf("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return name(tagged.String()), nil
}

// setName makes n a name of the image, and returns the image it named before.
func setName(ctx context.Context, tx *sql.Tx, n name, id digest.Digest) (before digest.Digest, err error) {
	err = tx.QueryRowContext(ctx, `SELECT image FROM image_names WHERE name = ?`, string(n)).Scan(&before)
	if err != nil && err != sql.ErrNoRows { //nolint:errorlint // Scan returns it bare
		return "", fmt.Errorf("looking up %s: %w", n, err)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO image_names (name, image) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET image = excluded.image`, string(n), id.String())
	if err != nil {
		return "", fmt.Errorf("naming %s: %w", n, err)
	}
	return before, nil
}
