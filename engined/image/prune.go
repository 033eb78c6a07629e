package image

import (
	"context"
	"strconv"
	"time"

	apievents "github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"

	"github.com/engined/engined/proto/errdefs"
)

// Prune removes images that no container uses: nameless ones, or with the
// filter dangling=false all. What cannot go stays, without an error.
func (s *Store) Prune(ctx context.Context, filters Filters, running map[string]bool) (apiimage.PruneReport, error) {
	report := apiimage.PruneReport{}
	if err := filters.only("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	dangling, err := filters.flag("dangling", true)
	if err != nil {
		return report, err
	}
	until, err := filters.until(time.Now())
	if err != nil {
		return report, err
	}
	found, err := s.all(ctx)
	if err != nil {
		return report, err
	}
	for _, r := range found.rows {
		switch {
		case len(r.names) == 0 && found.parents[r.id], dangling && hasTag(r.names),
			!until.IsZero() && r.created().After(until), !filters.labels(r.labels()):
			continue
		}
		if err := s.pruneOne(ctx, r, running, &report); err != nil {
			return report, err
		}
	}
	s.events.Publish(apievents.ImageEventType, apievents.ActionPrune, apievents.Actor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)}})
	return report, nil
}

// pruneOne removes an image name by name, as long as nobody uses it.
func (s *Store) pruneOne(ctx context.Context, r *row, running map[string]bool, report *apiimage.PruneReport) error {
	refs := []string{r.id.String()}
	if len(r.names) > 0 {
		refs = nil
		for _, n := range r.names {
			refs = append(refs, string(n))
		}
	}
	for _, ref := range refs {
		records, gone, err := s.remove(ctx, ref, RemoveOptions{Running: running})
		switch errdefs.KindOf(err) {
		case errdefs.Conflict, errdefs.NotFound: // in use, or gone with another name
			continue
		}
		if err != nil {
			return err
		}
		report.ImagesDeleted = append(report.ImagesDeleted, records...)
		for _, l := range gone {
			report.SpaceReclaimed += uint64(l.Size)
		}
	}
	return nil
}
