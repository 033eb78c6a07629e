package container

import (
	"context"
	"strconv"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/shim"
)

// initProcess is the name of a container's first process.
const initProcess = shim.Init

// Resize sets the size of the container's terminal.
func (s *Service) Resize(ctx context.Context, ref string, height, width uint16) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if err := allow(resizing, c.record.Load()); err != nil {
		return err
	}
	if err := s.Tasks.Resize(ctx, c.id, initProcess, width, height); err != nil {
		return err
	}
	s.tell(c.record.Load(), apievents.ActionResize, map[string]string{
		"height": strconv.Itoa(int(height)), "width": strconv.Itoa(int(width)),
	})
	return nil
}
