package task

import (
	"context"
	"iter"

	"github.com/engined/engined/proto/errdefs"
	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

// Snapshot returns all tasks.
func (c *Client) Snapshot(ctx context.Context) (Snapshot, error) {
	answer, err := c.rpc.State(ctx, &supervisor.StateRequest{}, wait)
	if err != nil {
		return Snapshot{}, err
	}
	return fromState(answer), nil
}

// State returns one task with the pids in its cgroup, or a NotFound.
func (c *Client) State(ctx context.Context, id string) (Container, error) {
	answer, err := c.rpc.State(ctx, &supervisor.StateRequest{Id: id}, wait)
	if err != nil {
		return Container{}, err
	}
	for _, found := range answer.GetContainers() {
		if found.GetId() == id {
			return fromContainer(found), nil
		}
	}
	return Container{}, errdefs.NotFound.Coded(errdefs.NoSuchContainer, id, "the supervisor has no task %s", id)
}

// EventsAfter yields every event after number seq, once and in order, across
// restarts of the supervisor, until ctx ends. Its last item is an error.
func (c *Client) EventsAfter(ctx context.Context, seq uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for event, err := range c.rpc.EventsAfter(ctx, seq) {
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !yield(fromEvent(event), nil) {
				return
			}
		}
	}
}

// Stats returns a container's resource usage as its cgroup tells it.
func (c *Client) Stats(ctx context.Context, id string) (*supervisor.StatsResponse, error) {
	return c.rpc.Stats(ctx, &supervisor.StatsRequest{Id: id}, wait)
}
