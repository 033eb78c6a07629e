package image

import (
	"compress/gzip"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/engined/engined/engined/registry"
)

// blobSchema remembers what registries have: by it a push finds blobs that need
// not be sent, and sends the manifest that was pulled. It is a hint: a registry
// is asked before anything is relied upon.
var blobSchema = []string{`
CREATE TABLE layer_blobs (
	diff       TEXT NOT NULL,      -- sha256 of the uncompressed layer
	digest     TEXT NOT NULL,      -- of the blob
	size       INTEGER NOT NULL,
	media_type TEXT NOT NULL,
	level      INTEGER NOT NULL,   -- of gzip, as its header says; -1 the default
	repository TEXT NOT NULL,      -- where it was seen: docker.io/library/busybox
	seen       INTEGER NOT NULL,   -- Unix nanoseconds
	PRIMARY KEY (diff, digest, repository)
) STRICT;
CREATE INDEX layer_blobs_seen ON layer_blobs (seen);
CREATE TABLE image_manifests (
	image      TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
	digest     TEXT NOT NULL,
	media_type TEXT NOT NULL,
	raw        BLOB NOT NULL,
	PRIMARY KEY (image, digest)
) STRICT;
`}

// maxBlobRows bounds the table; the oldest go.
const maxBlobRows = 20_000

// seenBlob is a layer's blob and where it was.
type seenBlob struct {
	ocispec.Descriptor
	level      int // of gzip
	repository string
}

// pairing says that a blob is a layer's tar, packed.
type pairing struct{ diff, blob digest.Digest }

// provenBlobs leaves what is known to be true of a manifest and a configuration
// that pair layers with blobs: a layer that was here already needs no blob, so
// the two may name any. What counts is what was unpacked just now, or before.
func provenBlobs(ctx context.Context, tx *sql.Tx, diffs []digest.Digest, blobs []ocispec.Descriptor, unpacked map[pairing]bool) (provenDiffs []digest.Digest, proven []ocispec.Descriptor, err error) {
	for i, diff := range diffs {
		blob := blobs[i]
		if !unpacked[pairing{diff, blob.Digest}] {
			// As they were then: what this manifest says of them is not checked.
			row := tx.QueryRowContext(ctx, `SELECT size, media_type FROM layer_blobs WHERE diff = ? AND digest = ? LIMIT 1`, diff.String(), blob.Digest.String())
			if err := row.Scan(&blob.Size, &blob.MediaType); errors.Is(err, sql.ErrNoRows) {
				continue
			} else if err != nil {
				return nil, nil, fmt.Errorf("looking up a blob: %w", err)
			}
		}
		provenDiffs, proven = append(provenDiffs, diff), append(proven, blob)
	}
	return provenDiffs, proven, nil
}

// rememberBlobs records that the repository has these blobs for these layers.
func rememberBlobs(ctx context.Context, tx *sql.Tx, repository string, diffs []digest.Digest, blobs []ocispec.Descriptor, levels map[digest.Digest]int) error {
	now := time.Now().UnixNano()
	for i, diff := range diffs {
		level, told := levels[blobs[i].Digest]
		if !told {
			level = gzip.DefaultCompression
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO layer_blobs (diff, digest, size, media_type, level, repository, seen) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (diff, digest, repository) DO UPDATE SET size = excluded.size, media_type = excluded.media_type, seen = excluded.seen,
				level = CASE WHEN ? THEN excluded.level ELSE level END`,
			diff.String(), blobs[i].Digest.String(), blobs[i].Size, blobs[i].MediaType, level, repository, now, told)
		if err != nil {
			return fmt.Errorf("recording a blob: %w", err)
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM layer_blobs WHERE seen < (SELECT seen FROM layer_blobs ORDER BY seen DESC LIMIT 1 OFFSET ?)`, maxBlobRows)
	return err
}

// Connect sets where Pull and Push go, and drops what is spooled of blobs whose
// layers are here: a pull that died after its image was stored has left them.
func (s *Store) Connect(ctx context.Context, client *registry.Client) error {
	s.Remote = client
	kept, err := client.Kept()
	if err != nil {
		return fmt.Errorf("looking for blobs that are spooled: %w", err)
	}
	for _, blob := range kept {
		needless, err := s.unpacked(ctx, blob)
		if err == nil && needless {
			err = client.Forget(blob)
		}
		if err != nil {
			return fmt.Errorf("dropping blob %s: %w", blob, err)
		}
	}
	return nil
}

// unpacked says whether a blob's layer is here. Of one that several images have
// in different places, one is enough: it was pulled whole.
func (s *Store) unpacked(ctx context.Context, blob digest.Digest) (is bool, err error) {
	all, err := s.layers.All(ctx)
	if err != nil {
		return false, err
	}
	here := map[string]bool{}
	for _, l := range all {
		here[l.Diff.String()] = l.Damaged == ""
	}
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		diffs, err := stringsOf(ctx, tx, `SELECT DISTINCT diff FROM layer_blobs WHERE digest = ?`, blob.String())
		is = slices.ContainsFunc(diffs, func(diff string) bool { return here[diff] })
		return err
	})
	return is, err
}

// rememberManifest records a manifest that describes the image.
func rememberManifest(ctx context.Context, tx *sql.Tx, image digest.Digest, m registry.Manifest) error {
	_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO image_manifests (image, digest, media_type, raw) VALUES (?, ?, ?, ?)`,
		image.String(), m.Descriptor.Digest.String(), m.Descriptor.MediaType, m.Raw)
	if err != nil {
		return fmt.Errorf("recording a manifest: %w", err)
	}
	return nil
}

// blobsOf returns the blobs known for a layer, last seen first.
func (s *Store) blobsOf(ctx context.Context, diff digest.Digest) (blobs []seenBlob, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT digest, size, media_type, level, repository FROM layer_blobs WHERE diff = ? ORDER BY seen DESC LIMIT 50`, diff.String())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var b seenBlob
			if err := rows.Scan(&b.Digest, &b.Size, &b.MediaType, &b.level, &b.repository); err != nil {
				return err
			}
			if b.Digest.Validate() == nil {
				blobs = append(blobs, b)
			}
		}
		return rows.Err()
	})
	return blobs, err
}

// manifestsOf returns the manifests known for an image.
func (s *Store) manifestsOf(ctx context.Context, image digest.Digest) (manifests []registry.Manifest, err error) {
	err = s.db.View(ctx, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT digest, media_type, raw FROM image_manifests WHERE image = ? ORDER BY digest`, image.String())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var m registry.Manifest
			if err := rows.Scan(&m.Descriptor.Digest, &m.Descriptor.MediaType, &m.Raw); err != nil {
				return err
			}
			if m.Descriptor.Digest.Validate() != nil || m.Descriptor.Digest.Algorithm().FromBytes(m.Raw) != m.Descriptor.Digest {
				continue // a foreign hand's; one is made anew
			}
			m.Descriptor.Size = int64(len(m.Raw))
			manifests = append(manifests, m)
		}
		return rows.Err()
	})
	return manifests, err
}

// levelOf reads from a blob's first bytes how hard gzip tried (RFC 1952 section
// 2.3.1, XFL), so that a push can do the same. ok is false for other formats.
func levelOf(start []byte) (level int, ok bool) {
	if len(start) < 10 || start[0] != 0x1f || start[1] != 0x8b {
		return 0, false
	}
	switch start[8] {
	case 2:
		return gzip.BestCompression, true
	case 4:
		return gzip.BestSpeed, true
	}
	return gzip.DefaultCompression, true
}
