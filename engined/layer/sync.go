package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// Sync returns when all layers are on disk as they are. It is called once for
// an image, before the row that needs them: one syncfs(2) for thousands of files
// costs what writing them costs, one fsync(2) for each of them some times that.
func (s *Store) Sync() error {
	root, err := os.Open(s.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := unix.Syncfs(int(root.Fd())); err != nil {
		return fmt.Errorf("syncing %s: %w", s.root, err)
	}
	return nil
}

// garbage are directories that no row speaks of any more.
type garbage struct {
	mu       sync.Mutex
	dirs     []string // guarded by mu
	needed   []string // that a mount has below it still; guarded by mu
	sweeping bool     // guarded by mu
}

// take returns what there is; nothing means that the sweeper ends.
func (g *garbage) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	dirs := g.dirs
	g.dirs, g.sweeping = nil, len(dirs) > 0
	return dirs
}

// takeNeeded returns what was put aside, to be looked at again.
func (g *garbage) takeNeeded() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	dirs := g.needed
	g.needed = nil
	return dirs
}

// keep puts a directory aside until something is unmounted.
func (g *garbage) keep(dir string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.needed = append(g.needed, dir)
}

// drop removes directories of layers whose rows are gone, in the background.
func (s *Store) drop(dirs ...string) {
	s.garbage.mu.Lock()
	defer s.garbage.mu.Unlock()
	for _, dir := range dirs {
		if dir != "" { // a damaged row's, which names none
			s.garbage.dirs = append(s.garbage.dirs, dir)
		}
	}
	if !s.garbage.sweeping {
		s.garbage.sweeping = true
		s.sweeping.Go(s.sweep)
	}
}

// unmount undoes a writable layer's mount, and removes what only that had needed.
func (s *Store) unmount(id string) error {
	if err := s.driver.unmount(filepath.Join(s.root, id)); err != nil {
		return err
	}
	if dirs := s.garbage.takeNeeded(); len(dirs) > 0 {
		s.drop(dirs...)
	}
	return nil
}

// sweep goes on until there is nothing to remove. First the end of the rows is
// synced: a power cut that brought them back would find them without files.
func (s *Store) sweep() {
	for dirs := s.garbage.take(); len(dirs) > 0; dirs = s.garbage.take() {
		if err := s.db.Sync(); err != nil {
			s.log.Warn("removing layers; the next start tries again", "err", err)
			continue
		}
		needed, err := s.driver.below()
		if err != nil {
			s.log.Warn("looking for layers that are mounted; the next start tries again to remove others", "err", err)
			continue
		}
		for _, dir := range dirs {
			failpoint.At("layer-dropped")
			// A damaged layer that was replaced: a container that runs on it
			// lives on with what is left of it.
			if needed[dir] {
				s.garbage.keep(dir)
				continue
			}
			if err := s.driver.remove(filepath.Join(s.root, dir)); err != nil {
				s.log.Warn("removing a layer's directory; the next start tries again", "dir", dir, "err", err)
			}
		}
	}
}
