package image

import (
	"context"
	"database/sql"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/failpoint"
)

// Tag gives the image that ref means one more name. A name that another image
// has is taken from it.
func (s *Store) Tag(ctx context.Context, ref, repository, tag string) error {
	n, err := parseTag(repository, tag)
	if err != nil {
		return err
	}
	found, err := s.find(ctx, ref)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(tx *sql.Tx) error {
		if err := mustExist(ctx, tx, found.id); err != nil {
			return err
		}
		_, err := giveName(ctx, tx, n, found.id)
		return err
	})
	if err != nil {
		return err
	}
	failpoint.At("image-tagged")
	s.publish(apievents.ActionTag, found.id.String(), n.familiar(), found.labels())
	return nil
}

// labels are the image's own; none if it is damaged.
func (r *row) labels() map[string]string {
	if r.config == nil {
		return nil
	}
	return r.config.Config.Labels
}
