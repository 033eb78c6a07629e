package image

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

var schema = []string{`
CREATE TABLE images (
	id      TEXT PRIMARY KEY,        -- sha256:..., the digest of config
	config  BLOB NOT NULL,           -- the image configuration as it came
	chain   TEXT NOT NULL,           -- chain id of the uppermost layer; '' for none
	parent  TEXT NOT NULL,           -- image it was built on; '' for none
	created INTEGER NOT NULL,        -- when it came here, Unix nanoseconds
	tagged  INTEGER NOT NULL         -- when it last got a name; 0 never
) STRICT;
CREATE INDEX images_parent ON images (parent);
CREATE TABLE image_names (
	name  TEXT PRIMARY KEY,          -- normalized: docker.io/library/busybox:latest
	image TEXT NOT NULL REFERENCES images (id)
) STRICT;
CREATE INDEX image_names_image ON image_names (image);
CREATE TABLE image_holds (
	owner TEXT NOT NULL,             -- container/<id>
	image TEXT NOT NULL REFERENCES images (id),
	PRIMARY KEY (owner, image)
) STRICT;
CREATE INDEX image_holds_image ON image_holds (image);
`}

// Image is one whole image.
type Image struct {
	ID         digest.Digest
	Config     dockerspec.DockerOCIImage
	Chain      digest.Digest // the uppermost layer's chain id, "" for none
	Size       int64         // of all its layers
	Created    time.Time     // as its configuration says
	References []string      // repo:tag and repo@digest, in their familiar form, sorted
}

// Store keeps the images of one data root.
type Store struct {
	db     *store.DB
	layers *layer.Store
	events *events.Log
	dir    string // for spooled archives
	log    *slog.Logger

	// Remote is where Pull and Push go. It is set before their first call.
	Remote *registry.Client

	mu      sync.RWMutex
	configs map[digest.Digest]*config // read and verified; guarded by mu
}

// Open opens the images in db, whose layers are in layers. root is the data
// root. Damaged images are logged, and stay.
func Open(ctx context.Context, db *store.DB, layers *layer.Store, log *events.Log, root string) (*Store, error) {
	if err := db.Migrate(ctx, "image", schema); err != nil {
		return nil, fmt.Errorf("preparing the image tables: %w", err)
	}
	if err := db.Migrate(ctx, "image-blobs", blobSchema); err != nil {
		return nil, fmt.Errorf("preparing the tables of blobs: %w", err)
	}
	s := &Store{db: db, layers: layers, events: log, dir: filepath.Join(root, "image"), log: slog.Default(), configs: map[digest.Digest]*config{}}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the image directory: %w", err)
	}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	rows, err := s.rows(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.damage != nil {
			s.log.ErrorContext(ctx, "image is damaged", "image", r.id, "err", r.damage)
		}
	}
	return s, nil
}

// sweep removes what loads that died had spooled.
func (s *Store) sweep() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "load-*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing what a load left: %w", err)
		}
	}
	return nil
}

// row is an image as the database has it, with its layers' state.
type row struct {
	id, chain, parent digest.Digest
	tagged            time.Time
	config            *config // nil if damaged
	damage            error   // nil, or why the image cannot be used
	size              int64
	names             []name
}

const columns = `SELECT id, chain, parent, tagged FROM images `

// rows reads every image, by id.
func (s *Store) rows(ctx context.Context) ([]*row, error) {
	layers, err := s.layers.All(ctx)
	if err != nil {
		return nil, err
	}
	var rows []*row
	err = s.db.View(ctx, func(tx *sql.Tx) (err error) {
		if rows, err = s.readRows(ctx, tx, layers, columns+`ORDER BY id`); err != nil {
			return err
		}
		return readNames(ctx, tx, &rows, true)
	})
	return rows, err
}

func (s *Store) readRows(ctx context.Context, tx *sql.Tx, layers map[digest.Digest]layer.Layer, query string, args ...any) ([]*row, error) {
	found, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("reading images: %w", err)
	}
	defer found.Close()
	var rows []*row
	for found.Next() {
		var r row
		var tagged int64
		if err := found.Scan(&r.id, &r.chain, &r.parent, &tagged); err != nil {
			return nil, fmt.Errorf("reading an image's row: %w", err)
		}
		if tagged != 0 {
			r.tagged = time.Unix(0, tagged)
		}
		rows = append(rows, &r)
	}
	if err := found.Err(); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if err := s.complete(ctx, tx, r, layers); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// complete adds configuration and size to a row, or what is wrong with it.
func (s *Store) complete(ctx context.Context, tx *sql.Tx, r *row, layers map[digest.Digest]layer.Layer) error {
	var err error
	if r.config, err = s.configOf(ctx, tx, r.id); err != nil {
		if errdefs.KindOf(err) != errdefs.DataLoss {
			return err
		}
		r.damage = err
	} else if r.config.chain != r.chain {
		r.damage = errdefs.DataLoss.Errorf("its row names layer %s, its configuration %s", r.chain, r.config.chain)
	}
	for at := r.chain; at != "" && r.damage == nil; {
		l, found := layers[at]
		switch {
		case !found:
			r.damage = errdefs.DataLoss.Errorf("layer %s is not here", at)
		case l.Damaged != "":
			r.damage = errdefs.DataLoss.Errorf("layer %s is damaged: %s", at, l.Damaged)
		}
		at = l.Parent
	}
	r.size = layers[r.chain].Total
	return nil
}

// configOf returns an image's configuration, verified when it is read first.
func (s *Store) configOf(ctx context.Context, tx *sql.Tx, id digest.Digest) (*config, error) {
	s.mu.RLock()
	known := s.configs[id]
	s.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	var raw []byte
	err := tx.QueryRowContext(ctx, `SELECT config FROM images WHERE id = ?`, id.String()).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, noSuchImage(id.String())
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of %s: %w", id, err)
	}
	if got := digest.FromBytes(raw); got != id {
		return nil, errdefs.DataLoss.Errorf("image %s is damaged: the digest of its configuration is %s", id, got)
	}
	parsed, err := parseConfig(raw)
	if err != nil {
		return nil, errdefs.DataLoss.Errorf("image %s is damaged: %w", id, err)
	}
	s.mu.Lock()
	s.configs[id] = parsed
	s.mu.Unlock()
	return parsed, nil
}

func (s *Store) forget(id digest.Digest) {
	s.mu.Lock()
	delete(s.configs, id)
	s.mu.Unlock()
}

// image returns what a whole row stands for.
func (r *row) image() (Image, error) {
	if r.damage != nil {
		return Image{}, r.damage
	}
	image := Image{ID: r.id, Config: r.config.DockerOCIImage, Chain: r.chain, Size: r.size, Created: r.config.created()}
	for _, n := range r.names {
		image.References = append(image.References, n.familiar())
	}
	return image, nil
}

// publish tells that something happened to an image. The attributes are
// dockerd's: the image's labels, and the name by which it was meant.
func (s *Store) publish(action apievents.Action, id, name string, labels map[string]string) {
	attributes := map[string]string{}
	for key, value := range labels {
		attributes[key] = value
	}
	if name != "" {
		attributes["name"] = name
	}
	s.events.Publish(apievents.ImageEventType, action, apievents.Actor{ID: id, Attributes: attributes})
}

// shortID is how Docker's texts name an image.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
