package image

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/engined/engined/proto/errdefs"
)

// Filters are those of a request: the values given for each name. Values of
// one name are alternatives, except labels, which must all be there.
type Filters map[string][]string

// only refuses filters that the caller does not know.
func (f Filters) only(known ...string) error {
	for name := range f {
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found {
			return errdefs.InvalidArgument.Errorf("invalid filter '%s'", name)
		}
	}
	return nil
}

// flag returns the one boolean value of a filter.
func (f Filters) flag(name string, missing bool) (bool, error) {
	switch values := f[name]; {
	case len(values) == 0:
		return missing, nil
	case len(values) == 1 && (values[0] == "1" || values[0] == "true"):
		return true, nil
	case len(values) == 1 && (values[0] == "0" || values[0] == "false"):
		return false, nil
	default:
		return false, errdefs.InvalidArgument.Errorf("invalid filter '%s=%v': expected true or false", name, values)
	}
}

// until returns the filter's moment, zero if there is none.
func (f Filters) until(now time.Time) (time.Time, error) {
	values := f["until"]
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, errdefs.InvalidArgument.Errorf("more than one until filter specified")
	}
	moment, err := parseMoment(values[0], now)
	if err != nil {
		return time.Time{}, errdefs.InvalidArgument.Errorf("invalid filter 'until=%s': %w", values[0], err)
	}
	return moment, nil
}

// parseMoment reads what Docker takes for a time: a duration before now, Unix
// seconds, or a date, with or without time and zone.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.Unix(0, int64(seconds*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"} {
		if moment, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return moment, nil
		}
	}
	return time.Time{}, fmt.Errorf("expected a duration, Unix seconds or an RFC 3339 time")
}

// labels is true if every label filter finds its label, and no label! one does.
func (f Filters) labels(labels map[string]string) bool {
	for _, wanted := range f["label"] {
		if !hasLabel(labels, wanted) {
			return false
		}
	}
	for _, unwanted := range f["label!"] {
		if hasLabel(labels, unwanted) {
			return false
		}
	}
	return true
}

func hasLabel(labels map[string]string, wanted string) bool {
	key, value, compare := strings.Cut(wanted, "=")
	got, has := labels[key]
	return has && (!compare || got == value)
}

// named returns those of names that a reference filter matches; all without.
func (f Filters) named(names []name) ([]name, error) {
	patterns := f["reference"]
	if len(patterns) == 0 {
		return names, nil
	}
	var matching []name
	for _, n := range names {
		for _, pattern := range patterns {
			matches, err := reference.FamiliarMatch(pattern, n.parse())
			if err != nil {
				return nil, errdefs.InvalidArgument.Errorf("invalid filter 'reference=%s': %w", pattern, err)
			}
			if matches {
				matching = append(matching, n)
				break
			}
		}
	}
	return matching, nil
}
