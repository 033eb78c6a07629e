package image

import (
	"context"
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

	mu       sync.RWMutex
	configs  map[digest.Digest]*config // read and verified; guarded by mu
	snapshot *snapshot                 // of the last list; guarded by mu
}

// Open opens the images in db, whose layers are in layers. root is the data
// root.
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
	return s, nil
}

// Report reads all images, which the first list need not do then, and logs
// those that are damaged. They stay.
func (s *Store) Report(ctx context.Context) error {
	found, err := s.all(ctx)
	if err != nil {
		return err
	}
	for _, r := range found.rows {
		if r.damage != nil {
			s.log.ErrorContext(ctx, "image is damaged", "image", r.id, "err", r.damage)
		}
	}
	return nil
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
