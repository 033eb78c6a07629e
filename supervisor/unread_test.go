package supervisor

import (
	"context"
	"fmt"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestReadersThatNeverRead: they delay nobody and what they have not read is not
// kept for them.
func TestReadersThatNeverRead(t *testing.T) {
	s, _, socket := serve(t, JournalLimits{Bytes: 1 << 20})
	const window = 64 << 10 // fixed: by itself the client, in this process too, grows it to megabytes
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := api.NewSupervisorClient(conn)
	for range 20 {
		stream, err := client.Events(t.Context(), &api.EventsRequest{Resume: true, AfterSeq: s.journal.last()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
	}
	before := inUse()
	long := strings.Repeat("x", 8<<10)
	for i := range 500 { // 12 MiB
		happen(t, s, fmt.Sprint(i, long))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // they would delay it for ever
	defer cancel()
	if _, err := client.State(ctx, &api.StateRequest{}); err != nil {
		t.Error(err)
	}
	// A window and what gRPC has before it, for each stream; kept whole, the
	// events would be 240 MiB.
	if grown := inUse() - before; grown > 20<<20 {
		t.Errorf("%d KiB are kept", grown>>10)
	}
}

// TestTooManyReaders: one more than fit is refused, and welcome once another has
// gone.
func TestTooManyReaders(t *testing.T) {
	s, client, _ := serve(t, JournalLimits{})
	subscribe := func(ctx context.Context) error {
		stream, err := client.Events(ctx, &api.EventsRequest{})
		if err != nil {
			return err
		}
		if header, err := stream.Header(); header != nil {
			return err
		}
		_, err = stream.Recv() // it ended before its header
		return err
	}
	first, leave := context.WithCancel(t.Context())
	defer leave()
	for i := range maxReaders {
		ctx := t.Context()
		if i == 0 {
			ctx = first
		}
		if err := subscribe(ctx); err != nil {
			t.Fatalf("reader %d: %v", i, err)
		}
	}
	if err := subscribe(t.Context()); errdefs.KindOf(err) != errdefs.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	leave()
	for late := time.Now().Add(time.Minute); s.metrics.readers.Load() >= maxReaders && time.Now().Before(late); {
		goruntime.Gosched() // its stream ends in its own time
	}
	if err := subscribe(t.Context()); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

func inUse() int {
	goruntime.GC()
	var stats goruntime.MemStats
	goruntime.ReadMemStats(&stats)
	return int(stats.HeapAlloc)
}
