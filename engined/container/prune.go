package container

import (
	"context"
	"strconv"
	"strings"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// Prune removes the containers that do not run and that filters let through.
func (s *Service) Prune(ctx context.Context, filters map[string][]string) (apicontainer.PruneReport, error) {
	report := apicontainer.PruneReport{ContainersDeleted: []string{}}
	fits, err := pruneFilter(filters)
	if err != nil {
		return report, err
	}
	for _, c := range s.index.all() {
		r := c.record.Load()
		if phase := r.Phase(); phase != created && phase != exited && phase != dead || !fits(r) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return report, err
		}
		size, sizeErr := s.Layers.Size(ctx, c.id)
		err := s.remove(ctx, c, removal, false)
		if kind := errdefs.KindOf(err); kind == errdefs.Conflict || kind == errdefs.NotFound {
			continue // somebody else has it in hand
		}
		if err != nil {
			return report, err
		}
		report.ContainersDeleted = append(report.ContainersDeleted, c.id)
		if sizeErr == nil {
			report.SpaceReclaimed += uint64(size)
		}
	}
	s.Events.Publish(apievents.ContainerEventType, apievents.ActionPrune, apievents.Actor{
		Attributes: map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)},
	})
	return report, nil
}

func pruneFilter(filters map[string][]string) (func(*Record) bool, error) {
	var until time.Time
	for key, values := range filters {
		switch key {
		case "label", "label!":
		case "until":
			if len(values) != 1 {
				return nil, errdefs.InvalidArgument.Errorf("more than one until filter specified")
			}
			t, err := parseMoment(values[0], time.Now())
			if err != nil {
				return nil, err
			}
			until = t
		default:
			return nil, errdefs.InvalidArgument.Errorf("invalid filter '%s'", key)
		}
	}
	return func(r *Record) bool {
		if !until.IsZero() && !r.Created.Before(until) {
			return false
		}
		if not := filters["label!"]; len(not) > 0 && labelsFit(r, not) {
			return false
		}
		return labelsFit(r, filters["label"])
	}, nil
}

// parseMoment reads a duration before now, seconds since 1970, or RFC 3339.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	whole, _, _ := strings.Cut(text, ".")
	if seconds, err := strconv.ParseInt(whole, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errdefs.InvalidArgument.Errorf("invalid filter 'until=%s': expected a duration or a time", text)
}
