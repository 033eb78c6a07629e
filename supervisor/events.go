package supervisor

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// maxReaders bounds the calls of Events under way, each of which takes some tens
// of kilobytes whether or not its client reads.
const maxReaders = 1000

// Events streams the journal to one client. The stream's cursor is all that a
// slow client holds; once the journal has left it behind it gets a snapshot.
func (s *Supervisor) Events(request *api.EventsRequest, stream grpc.ServerStreamingServer[api.Event]) error {
	defer s.metrics.readers.Add(-1)
	if s.metrics.readers.Add(1) > maxReaders {
		return errdefs.ResourceExhausted.Errorf("events: %d calls are under way, expected no more", maxReaders)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if request.Timestamp != nil && request.Timestamp.CheckValid() != nil {
		return errdefs.InvalidArgument.Errorf("timestamp: %v, expected a valid time", request.Timestamp)
	}
	wanted := func(event *api.Event) bool {
		return event.Type != eventForget && (request.Id == "" || request.Id == event.Id) &&
			(request.Resume || request.Timestamp == nil || !event.Timestamp.AsTime().Before(request.Timestamp.AsTime()))
	}
	// The header tells the client that nothing from here on is missed.
	subscribed := func() error { return stream.SendHeader(nil) }
	err := s.stream(ctx, request, wanted, subscribed, stream.Send)
	if s.life.Err() != nil {
		return errStopping()
	}
	return err
}

// stream sends what is wanted until ctx ends or, with storedOnly, until all
// events that are there by now are sent.
func (s *Supervisor) stream(ctx context.Context, request *api.EventsRequest, wanted func(*api.Event) bool, subscribed func() error, send func(*api.Event) error) error {
	end := s.journal.last()
	from := s.journal.readAfter(s.firstFor(request))
	defer from.close()
	if err := subscribed(); err != nil {
		return err
	}
	for {
		if request.StoredOnly && from.next > end {
			return nil
		}
		event, err := from.wait(ctx)
		if errors.Is(err, errGone) {
			event, err = s.snapshotEvent(request.Id)
			from.next = event.GetSeq() + 1
		}
		if err != nil {
			return err
		}
		if event.Type == eventSnapshot || wanted(event) {
			if err := send(event); err != nil {
				return err
			}
		}
	}
}

// firstFor returns the number after which the client wants to read.
func (s *Supervisor) firstFor(request *api.EventsRequest) uint64 {
	switch {
	case request.Resume && request.AfterSeq > s.journal.last():
		return 0 // another journal's number: as little held as 0 is
	case request.Resume:
		return request.AfterSeq
	case request.Timestamp != nil || request.StoredOnly:
		return s.journal.oldest() - 1
	}
	return s.journal.last()
}

// snapshotEvent holds what the table says now.
func (s *Supervisor) snapshotEvent(id string) (*api.Event, error) {
	state, _, err := s.snapshot(id)
	if errdefs.KindOf(err) == errdefs.NotFound { // nothing is a state, too
		state, _, err = s.snapshot("")
		if err == nil {
			state.Containers = nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &api.Event{Type: eventSnapshot, Seq: state.Seq, State: state}, nil
}
