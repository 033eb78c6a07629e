package supervisor

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/engined/engined/proto/errdefs"
)

// maxMessage bounds an answer: a State of tens of thousands of containers.
const maxMessage = 64 << 20

// window is how much of an answer may be under way: a State of a thousand
// containers goes without a wait. Given, it also ends gRPC's measuring of the
// connection, which costs a ping for each message.
const window = 2 << 20

// reconnect is how a client looks for a supervisor that restarts: soon, since it
// is back within a tenth of a second, and then so that the client adds no more
// than a fifth to the time that it was away.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, Jitter: 0.1, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// Client is a connection to a supervisor. Its calls return errors of package
// errdefs. It may be used by any number of goroutines and reconnects by itself.
type Client struct {
	SupervisorClient
	conn *grpc.ClientConn
}

// Dial connects to the supervisor at address, unix:///path or tcp://host:port.
// It returns when the connection stands, or an error of kind Unavailable when
// nobody answers there.
func Dial(ctx context.Context, address string) (*Client, error) {
	target, err := dialTarget(address)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(reconnect),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(classifyCall),
		grpc.WithStreamInterceptor(classifyStream),
	)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("supervisor's address %q: %w", address, err)
	}
	if err := awaitReady(ctx, conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connecting to the supervisor at %s: %w", address, err)
	}
	return &Client{SupervisorClient: NewSupervisorClient(conn), conn: conn}, nil
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// EventsAfter yields every event after seq, once and in order, for as long as
// ctx lasts, across restarts of the supervisor. What the journal no longer
// holds comes as one event of type "snapshot". The only errors it yields, as
// its last item, are those that trying again cannot mend.
func (c *Client) EventsAfter(ctx context.Context, seq uint64) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		for {
			next, err := c.followOnce(ctx, seq, yield)
			if err == nil {
				return
			}
			seq = next
			if ctx.Err() != nil || errdefs.KindOf(err) != errdefs.Unavailable {
				yield(nil, err)
				return
			}
		}
	}
}

// followOnce reads one stream. It returns nil when the reader has had enough.
func (c *Client) followOnce(ctx context.Context, seq uint64, yield func(*Event, error) bool) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Events(ctx, &EventsRequest{Resume: true, AfterSeq: seq}, grpc.WaitForReady(true))
	if err != nil {
		return seq, err
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return seq, lost(ctx, err)
		}
		seq = event.GetSeq()
		if !yield(event, nil) {
			return seq, nil
		}
	}
}

// lost makes an end of the stream that nobody asked for one of kind
// Unavailable: the supervisor has stopped.
func lost(ctx context.Context, err error) error {
	if errdefs.KindOf(err) == errdefs.Unknown && ctx.Err() == nil {
		return errdefs.Unavailable.Errorf("the supervisor ended the stream: %w", err)
	}
	return err
}

func dialTarget(address string) (string, error) {
	scheme, rest, found := strings.Cut(address, "://")
	switch {
	case found && scheme == "unix" && rest != "" && rest[0] == '/':
		return "unix://" + rest, nil
	case found && scheme == "tcp" && rest != "":
		return "passthrough:///" + rest, nil
	}
	return "", errdefs.InvalidArgument.Errorf("supervisor's address %q: expected unix:///path or tcp://host:port", address)
}

// awaitReady waits for the first attempt to connect.
func awaitReady(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.TransientFailure || state == connectivity.Shutdown {
			return errdefs.Unavailable.Errorf("nobody answers")
		}
		if !conn.WaitForStateChange(ctx, state) {
			return errdefs.Unavailable.Errorf("nobody answers: %w", ctx.Err())
		}
	}
	return nil
}

func classifyCall(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, request, reply, conn, opts...)
	return FromStatus(err)
}

func classifyStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, FromStatus(err)
	}
	return classifiedStream{stream}, nil
}

type classifiedStream struct{ grpc.ClientStream }

func (s classifiedStream) RecvMsg(message any) error {
	return FromStatus(s.ClientStream.RecvMsg(message))
}
