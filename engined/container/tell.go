package container

import (
	"maps"

	apievents "github.com/moby/moby/api/types/events"
)

// tell publishes an event about a container, with its labels, image and name.
func (s *Service) tell(r *Record, action apievents.Action, more map[string]string) {
	attributes := make(map[string]string)
	maps.Copy(attributes, r.Config.Labels)
	maps.Copy(attributes, more)
	attributes["image"], attributes["name"] = r.Config.Image, r.Name
	s.Events.Publish(apievents.ContainerEventType, action, apievents.Actor{ID: r.ID, Attributes: attributes})
}
