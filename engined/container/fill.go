package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/go-archive"
	apimount "github.com/moby/moby/api/types/mount"
)

// fillings are the volumes that are being filled, each by one start.
type fillings struct {
	mu   sync.Mutex               // guards what follows
	done map[string]chan struct{} // by name; closed when the start is done with it
}

// take waits until nobody else fills a volume and returns what gives it back.
func (f *fillings) take(ctx context.Context, volume string) (release func(), err error) {
	for {
		f.mu.Lock()
		done, busy := f.done[volume]
		if !busy {
			done = make(chan struct{})
			f.done[volume] = done
			f.mu.Unlock()
			return func() { f.release(volume) }, nil
		}
		f.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fillings) release(volume string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.done[volume])
	delete(f.done, volume)
}

// fillVolumes copies what the image has at a volume's place into the volume,
// if that is empty: it is so at its first use.
func (s *Service) fillVolumes(ctx context.Context, r *Record, rootfs string) error {
	for _, m := range r.Mounts {
		if m.Type != apimount.TypeVolume || m.NoCopy {
			continue
		}
		if err := s.fillOne(ctx, m, rootfs); err != nil {
			return fmt.Errorf("filling volume %s from the image's %s: %w", m.Name, m.Destination, err)
		}
	}
	return nil
}

func (s *Service) fillOne(ctx context.Context, m Mount, rootfs string) error {
	release, err := s.fillings.take(ctx, m.Name)
	if err != nil {
		return err
	}
	defer release()
	return fillVolume(ctx, m.Source, rootfs, m.Destination)
}

// fillVolume marks a volume while it copies, since one with half of the content
// is not empty either. It copies in place: a new directory would be none of
// those that have the volume mounted already. For their sake, too, what a copy
// that was cut off has left is written over and nothing is deleted.
func fillVolume(ctx context.Context, volume, rootfs, place string) error {
	has, err := os.ReadDir(volume)
	if err != nil {
		return err
	}
	mark := filepath.Join(filepath.Dir(volume), "filling")
	if len(has) > 0 {
		if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := copyInto(ctx, volume, rootfs, place); err != nil {
		return err
	}
	return os.Remove(mark)
}

// copyInto copies a directory of the image, if there is one of that name.
func copyInto(ctx context.Context, volume, rootfs, place string) error {
	from, err := pathrs.OpenInRoot(rootfs, place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil || !info.IsDir() {
		return err
	}
	// The descriptor stays the directory that was found, whatever becomes of
	// its path.
	source := fmt.Sprintf("/proc/self/fd/%d", from.Fd())
	content, err := archive.TarWithOptions(source+"/.", &archive.TarOptions{})
	if err != nil {
		return err
	}
	defer content.Close()
	if err := archive.Untar(bounded{ctx, content}, volume, &archive.TarOptions{}); err != nil {
		return err
	}
	return copyOwner(volume, info)
}

// bounded is a reader that ends with a context.
type bounded struct {
	ctx  context.Context
	from io.Reader
}

func (b bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.from.Read(p)
}
