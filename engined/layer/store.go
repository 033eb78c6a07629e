package layer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// Options configure a Store.
type Options struct {
	Driver        string   // "" means: the one that has data, else the first that works here
	DriverOptions []string // --storage-opt, each of them NAME=VALUE
	Logger        *slog.Logger
}

// Layer is one read-only layer.
type Layer struct {
	Chain   digest.Digest
	Diff    digest.Digest // digest of its uncompressed tar
	Parent  digest.Digest // "" for a bottom layer
	Size    int64         // bytes of its own files
	Total   int64         // Size with all parents
	Created time.Time
	Damaged string // "" or what is wrong with it
	dir     string
	misfit  bool // the row itself is damaged, see faultOf
}

// Store keeps the layers of one driver under one data root.
type Store struct {
	db     *store.DB
	name   string // the driver's
	root   string // <data root>/<name>
	driver driver
	log    *slog.Logger

	keys keys // one verb at a time per writable layer, one unpack at a time per chain id

	sweeping sync.WaitGroup // removals that nobody waits for; Close does
	garbage  garbage
}

// Open opens the layers under root, the data root. It settles what an earlier
// process left half done; slow removals go on in the background until Close.
func Open(ctx context.Context, db *store.DB, root string, opts Options) (*Store, error) {
	if err := db.Migrate(ctx, "layer", schema); err != nil {
		return nil, fmt.Errorf("preparing the layer tables: %w", err)
	}
	kind, err := choose(root, opts.Driver)
	if err != nil {
		return nil, err
	}
	options, err := kind.parseOptions(opts.DriverOptions)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, name: kind.name, root: filepath.Join(root, kind.name), log: opts.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	if err := s.start(ctx, kind, options); err != nil {
		return nil, err
	}
	return s, nil
}

// start takes possession of the driver's directory before the driver does
// anything there, and puts in order what is in it.
func (s *Store) start(ctx context.Context, kind *kind, options map[string]string) error {
	known, err := s.any(ctx)
	if err != nil {
		return err
	}
	if err := claim(s.root, known); err != nil {
		return err
	}
	if s.driver, err = kind.open(s.root, options, s.log); err != nil {
		return fmt.Errorf("opening storage driver %s: %w", s.name, err)
	}
	if err := s.settle(ctx); err != nil {
		return errors.Join(fmt.Errorf("settling layers in %s: %w", s.root, err), s.Close())
	}
	return nil
}

// marker is a file that says whose directory this is.
const marker = "engined-layers"

// claim makes the driver's directory ours. What has no row there is removed, so
// one that holds something and is not ours (an old Docker's, say) is refused:
// one without marker, of which the database knows nothing.
func claim(dir string, known bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the driver's directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the driver's directory: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == marker {
			return nil
		}
	}
	if len(entries) > 0 && !known {
		return errdefs.FailedPrecondition.Errorf("%s holds something that is not engined's (it has no file %s): use another data root", dir, marker)
	}
	return os.WriteFile(filepath.Join(dir, marker), []byte("This directory is engined's. What its database does not know is removed.\n"), 0o600)
}

// Close waits for removals in the background. Mounts stay: containers live on.
func (s *Store) Close() error {
	s.sweeping.Wait()
	return s.driver.close()
}

// Name is the driver's name.
func (s *Store) Name() string { return s.name }

// Status is what `docker info` prints below the driver's name.
func (s *Store) Status() [][2]string { return s.driver.status() }

// settle makes directory and tables agree after whatever happened before:
// holds of calls that died are dropped, unneeded layers removed, directories
// without a row swept, rows without a directory marked damaged.
func (s *Store) settle(ctx context.Context) error {
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM layer_holds WHERE driver = ? AND owner LIKE 'work/%'`, s.Name())
		return err
	})
	if err != nil {
		return fmt.Errorf("dropping holds of unfinished work: %w", err)
	}
	known, err := s.checkRows(ctx)
	if err != nil {
		return err
	}
	if err := s.sweepUnknown(known); err != nil {
		return err
	}
	_, err = s.Collect(ctx)
	return err
}

// sweepUnknown removes directories that no row speaks of and no mount needs.
func (s *Store) sweepUnknown(known map[string]bool) error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	needed, err := s.driver.below()
	if err != nil {
		return fmt.Errorf("looking for layers that are mounted: %w", err)
	}
	for _, entry := range entries {
		switch dir := entry.Name(); {
		case dir == marker, known[dir]:
		case needed[dir]:
			s.garbage.keep(dir)
		default:
			s.log.Info("removing what an interrupted call left", "dir", dir)
			s.discard(dir)
		}
	}
	return nil
}

// checkRows marks layers whose directory is gone or cannot be read, clears the
// mark where it is back, and returns every directory name that a row speaks of.
func (s *Store) checkRows(ctx context.Context) (map[string]bool, error) {
	known := map[string]bool{}
	err := s.db.Update(ctx, func(tx *sql.Tx) error {
		layers, err := s.query(ctx, tx, `ORDER BY created`)
		if err != nil {
			return err
		}
		for _, l := range layers {
			known[l.dir] = true
			if err := s.checkRow(ctx, tx, l); err != nil {
				return err
			}
		}
		return eachString(ctx, tx, func(id string) { known[id] = true },
			`SELECT id FROM writable_layers WHERE driver = ?`, s.Name())
	})
	return known, err
}

// What a start finds is found again at the next, or is gone: a disk that did
// not answer, or a process out of descriptors, says nothing lasting of a layer.
const (
	directoryMissing    = "its directory is missing"
	directoryUnreadable = "its directory cannot be read: "
)

func (s *Store) checkRow(ctx context.Context, tx *sql.Tx, l Layer) error {
	if l.misfit {
		s.log.Error("layer is damaged", "chain", l.Chain, "damage", l.Damaged)
		return nil
	}
	damage := l.Damaged
	if damage == directoryMissing || strings.HasPrefix(damage, directoryUnreadable) {
		damage = "" // unless it still is
	}
	if damage == "" { // else it was read, and is known to be worse
		if err := s.driver.check(filepath.Join(s.root, l.dir)); errors.Is(err, fs.ErrNotExist) {
			damage = directoryMissing
		} else if err != nil {
			damage = directoryUnreadable + err.Error()
		}
	}
	if damage == l.Damaged {
		return nil
	}
	if damage != "" {
		s.log.Error("layer is damaged", "chain", l.Chain, "dir", l.dir, "damage", damage)
	}
	return s.mark(ctx, tx, l.Chain, damage)
}

// discard removes a directory: at once from its name, in the background from
// the disk, because deep trees take seconds.
func (s *Store) discard(dir string) {
	if dir == "" {
		return // a damaged row's, which names none
	}
	path := filepath.Join(s.root, dir)
	if err := s.driver.unmount(path); err != nil {
		s.log.Warn("unmounting what is to be removed; the next start tries again", "dir", dir, "err", err)
		return
	}
	gone := filepath.Join(s.root, newStagingName())
	if err := os.Rename(path, gone); errors.Is(err, fs.ErrNotExist) {
		return
	} else if err != nil {
		s.log.Warn("renaming what is to be removed", "dir", dir, "err", err)
		gone = path
	}
	s.sweeping.Go(func() {
		if err := s.driver.remove(gone); err != nil {
			s.log.Warn("removing a layer's directory; the next start tries again", "dir", gone, "err", err)
		}
	})
}
