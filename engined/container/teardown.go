package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/engined/engined/proto/errdefs"
)

// settle gives back what a run had, if there is something left of one and it
// has ended. The caller has the turn. Every step may have been done before.
func (s *Service) settle(ctx context.Context, c *container) error {
	if c.record.Load().up() {
		return nil
	}
	dir := s.runDir(c.id)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.deleteTask(ctx, c.id, true); err != nil {
		return fmt.Errorf("deleting the task of %s: %w", c.id, err)
	}
	var failed []error
	if err := s.Layers.Unmount(ctx, c.id); err != nil {
		failed = append(failed, fmt.Errorf("unmounting the root filesystem of %s: %w", c.id, err))
	}
	if err := s.Networks.Release(ctx, c.id); err != nil {
		failed = append(failed, fmt.Errorf("releasing the network of %s: %w", c.id, err))
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	return os.RemoveAll(dir)
}

// deleteTask is satisfied if there is none.
func (s *Service) deleteTask(ctx context.Context, id string, force bool) error {
	err := s.Tasks.Delete(ctx, id, force)
	if errdefs.KindOf(err) == errdefs.NotFound {
		return nil
	}
	return err
}
