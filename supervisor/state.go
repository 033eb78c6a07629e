package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// State answers from the table. Only the pids of a single container are asked
// of the kernel, outside of the loop.
func (s *Supervisor) State(_ context.Context, request *api.StateRequest) (*api.StateResponse, error) {
	if request.Id == "" {
		return s.stateOfAll()
	}
	response, c, err := s.snapshot(request.Id)
	if err != nil || c == nil || c.handle == nil {
		return response, err
	}
	pids, err := c.handle.Pids()
	if err != nil && errdefs.KindOf(err) != errdefs.NotFound {
		s.logger.Warn("listing a container's processes", "container", request.Id, "error", err)
	}
	if len(pids) > 0 {
		message := clone(response.Containers[0])
		for _, pid := range pids {
			message.Pids = append(message.Pids, uint32(pid))
		}
		response.Containers[0] = message
	}
	return response, nil
}

// stateOfAll answers with what each container's message was encoded to when it
// last changed: to encode a thousand takes milliseconds, which is what others
// then wait. A field that comes ready encoded stands among the unknown ones; on
// the wire there is no difference.
func (s *Supervisor) stateOfAll() (*api.StateResponse, error) {
	response := &api.StateResponse{Machine: s.machine}
	var parts []*encoded
	err := s.ask(func(t *table) error {
		response.Seq = t.seq
		parts = make([]*encoded, 0, len(t.containers))
		for _, c := range t.containers {
			part, err := c.encode()
			if err != nil {
				return err
			}
			parts = append(parts, part)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(parts, func(a, b *encoded) int { return cmp.Compare(a.of.Id, b.of.Id) })
	size := 0
	for _, part := range parts {
		size += len(part.field)
	}
	all := make([]byte, 0, size)
	for _, part := range parts {
		all = append(all, part.field...)
	}
	response.ProtoReflect().SetUnknown(all)
	return response, nil
}

// encoded is a container's message as a field of StateResponse. Once made it is
// never changed.
type encoded struct {
	of    *api.Container
	field []byte
}

// stateContainers is the number of StateResponse's field.
const stateContainers = 1

// encode returns the container as it is now.
func (c *container) encode() (*encoded, error) {
	message := c.view()
	if c.encoded != nil && c.encoded.of == message {
		return c.encoded, nil
	}
	field := protowire.AppendTag(nil, stateContainers, protowire.BytesType)
	field = protowire.AppendVarint(field, uint64(proto.Size(message)))
	field, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(field, message)
	if err != nil {
		return nil, fmt.Errorf("encoding container %s: %w", message.Id, err)
	}
	c.encoded = &encoded{message, field}
	return c.encoded, nil
}

// snapshot returns what the table says of container id, or of all.
func (s *Supervisor) snapshot(id string) (response *api.StateResponse, c *container, err error) {
	response = &api.StateResponse{Machine: s.machine}
	err = s.ask(func(t *table) (err error) {
		response.Seq = t.seq
		if id == "" {
			response.Containers = t.all()
			return nil
		}
		if c, err = t.find(id); err != nil {
			return err
		}
		response.Containers = []*api.Container{c.view()}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(response.Containers, func(a, b *api.Container) int { return cmp.Compare(a.Id, b.Id) })
	return response, c, nil
}

// GetServerVersion says which build answers.
func (s *Supervisor) GetServerVersion(context.Context, *api.GetServerVersionRequest) (*api.GetServerVersionResponse, error) {
	major, minor, patch := parseVersion(s.config.Version)
	return &api.GetServerVersionResponse{Major: major, Minor: minor, Patch: patch, Revision: s.config.Revision}, nil
}
