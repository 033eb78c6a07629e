package container

import (
	"context"
	"path"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// Rename gives a container another name.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	if !validName.MatchString(name) {
		return errdefs.InvalidArgument.Errorf("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	name = path.Base(name)
	release, err := c.enter(ctx, renaming)
	if err != nil {
		return err
	}
	defer release()
	return s.rename(ctx, c, name)
}

func (s *Service) rename(ctx context.Context, c *container, name string) (err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	old := c.record.Load().Name
	if old == name {
		return errdefs.InvalidArgument.Errorf("Renaming a container with the same name as its current name")
	}
	if err := s.index.reserve(name, c.id); err != nil {
		return err
	}
	err = s.changeLocked(ctx, c, func(r *Record) error { r.Name = name; return nil })
	if err != nil {
		s.index.unreserve(name, c.id)
		return err
	}
	s.index.unreserve(old, c.id)
	s.tell(c.record.Load(), apievents.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}
