package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/proto/errdefs"
)

// eventLog is what this package needs of events.
type eventLog interface {
	Subscribe(ctx context.Context, since, until time.Time, match func(apievents.Message) bool) (<-chan apievents.Message, error)
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	since, until := q.moment("since"), q.moment("until")
	filters := q.filters()
	if q.err != nil {
		return q.err
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		return errdefs.InvalidArgument.Errorf("`since` time (%s) cannot be after `until` time (%s)", q.text("since"), q.text("until"))
	}
	match, err := eventFilter(filters)
	if err != nil {
		return err
	}
	messages, err := s.Events.Subscribe(r.Context(), since, until, match)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	out := flushed(w)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	return writeEvents(json.NewEncoder(out), messages, versionOf(r))
}

func writeEvents(encoder *json.Encoder, messages <-chan apievents.Message, v Version) error {
	encoder.SetEscapeHTML(false)
	for message := range messages {
		if err := encoder.Encode(v.event(message)); err != nil {
			return err
		}
	}
	return nil
}

// eventFilters are the keys of the filters parameter. Those after "scope" are
// kinds of objects, matched by the actor's id or name.
var eventFilters = []string{"event", "type", "label", "scope", "container", "image", "network", "volume", "daemon", "plugin", "service", "node", "secret", "config"}

// eventFilter returns what filters accept: every key, and of each key any value.
func eventFilter(filters map[string][]string) (func(apievents.Message) bool, error) {
	for key := range filters {
		if !slices.Contains(eventFilters, key) {
			return nil, errdefs.InvalidArgument.Errorf("invalid filter '%s'", key)
		}
	}
	return func(m apievents.Message) bool {
		for key, values := range filters {
			if !slices.ContainsFunc(values, func(value string) bool { return eventMatches(m, key, value) }) {
				return false
			}
		}
		return true
	}, nil
}

func eventMatches(m apievents.Message, key, value string) bool {
	switch key {
	case "event":
		// health_status and exec_start are followed by ": detail".
		action, _, _ := strings.Cut(string(m.Action), ": ")
		return value == string(m.Action) || value == action
	case "type":
		return value == string(m.Type)
	case "scope":
		return value == m.Scope
	case "label":
		name, want, hasWant := strings.Cut(value, "=")
		got, has := m.Actor.Attributes[name]
		return has && (!hasWant || got == want)
	case "image":
		return imageMatches(m, value)
	}
	return key == string(m.Type) && actorMatches(m.Actor, value)
}

// actorMatches says whether a value names an actor: by id, prefix of it, or name.
func actorMatches(actor apievents.Actor, value string) bool {
	return value != "" && (strings.HasPrefix(actor.ID, value) || actor.Attributes["name"] == value)
}

// imageMatches is true for the image's own events and its containers'.
func imageMatches(m apievents.Message, value string) bool {
	if m.Type == apievents.ImageEventType {
		name := m.Actor.Attributes["name"]
		return m.Actor.ID == value || name == value || withoutTag(name) == value
	}
	image := m.Actor.Attributes["image"]
	return image != "" && (image == value || withoutTag(image) == value)
}

// withoutTag cuts :TAG off a reference, not the port of a registry.
func withoutTag(reference string) string {
	if colon := strings.LastIndexByte(reference, ':'); colon > strings.LastIndexByte(reference, '/') {
		return reference[:colon]
	}
	return reference
}
