package container

import (
	"context"
	"io"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// Export writes a container's whole root as a tar, without what is mounted in
// it. The container may run.
func (s *Service) Export(ctx context.Context, ref string, to io.Writer) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	r := c.record.Load()
	if err := readable(r, "export"); err != nil {
		return err
	}
	if err := s.Layers.WriteTree(ctx, c.id, to); err != nil {
		return err
	}
	s.tell(r, apievents.ActionExport, nil)
	return nil
}

// readable refuses what is about to go, or has gone in part.
func readable(r *Record, doing string) error {
	switch r.Phase() {
	case dead:
		return errdefs.Conflict.Errorf("You cannot %s container %s which is Dead", doing, r.ID)
	case removing:
		return errdefs.Conflict.Errorf("You cannot %s container %s which is being removed", doing, r.ID)
	}
	return nil
}
