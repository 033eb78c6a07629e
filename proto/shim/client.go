package shim

import (
	"context"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Client calls one shim. Its methods may be called from many goroutines. They
// return the shim's own errors with kind and code, and Unavailable when the
// shim is gone.
type Client struct {
	conn *Conn
	done chan struct{} // closed when the receiver has ended
	send chan struct{} // capacity 1, full while somebody sends

	mu      sync.Mutex
	last    uint32                 // request id; guarded by mu, as all below
	waiting map[uint32]chan Packet // capacity 1
	notes   []Note
	noted   chan struct{} // closed and replaced when notes grows or the receiver ends
	ended   error
}

// Note is what the shim says unasked; one of its fields is set.
type Note struct {
	Exited  *ProcessRef
	LogLost *LogLostNote
}

// Connect connects to the shim that listens at path. Close the client to end
// its receiving goroutine.
func Connect(ctx context.Context, path string) (*Client, error) {
	conn, err := Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return NewClient(conn), nil
}

// NewClient takes over conn.
func NewClient(conn *Conn) *Client {
	c := &Client{
		conn:    conn,
		done:    make(chan struct{}),
		send:    make(chan struct{}, 1),
		waiting: map[uint32]chan Packet{},
		noted:   make(chan struct{}),
	}
	go c.receive()
	return c
}

// Close closes the connection and waits for the receiver. The shim goes on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Done is closed when the connection has ended: the shim is gone, or Close was called.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) receive() {
	defer close(c.done)
	for {
		p, err := c.conn.Receive(context.Background())
		if err != nil {
			c.end(err)
			return
		}
		for _, fd := range p.FDs { // no packet to a client has any
			unix.Close(fd)
		}
		p.Body = append([]byte(nil), p.Body...)
		c.deliver(p)
	}
}

func (c *Client) deliver(p Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.ID != 0 {
		if answer, waits := c.waiting[p.ID]; waits {
			delete(c.waiting, p.ID)
			answer <- p
		}
		return
	}
	var note Note
	var err error
	switch p.Type {
	case Exited:
		note.Exited = &ProcessRef{}
		err = p.Decode(note.Exited)
	case LogLost:
		note.LogLost = &LogLostNote{}
		err = p.Decode(note.LogLost)
	default: // a newer shim's: unknown notes are not for us
		return
	}
	if err == nil {
		c.notes = append(c.notes, note)
		c.wake()
	}
}

// wake tells every Next; c.mu is held.
func (c *Client) wake() {
	close(c.noted)
	c.noted = make(chan struct{})
}

func (c *Client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = errdefs.Unavailable.Errorf("the shim's connection has ended: %w", err)
	for id, answer := range c.waiting {
		delete(c.waiting, id)
		close(answer)
	}
	c.wake()
}

// Next returns the oldest note not yet returned. It waits for one until ctx
// ends or the connection does (io.EOF, after the last note).
func (c *Client) Next(ctx context.Context) (Note, error) {
	for {
		c.mu.Lock()
		if len(c.notes) > 0 {
			note := c.notes[0]
			c.notes = c.notes[1:]
			c.mu.Unlock()
			return note, nil
		}
		ended, noted := c.ended, c.noted
		c.mu.Unlock()
		if ended != nil {
			return Note{}, io.EOF
		}
		select {
		case <-noted:
		case <-ctx.Done():
			return Note{}, ctx.Err()
		}
	}
}

// call sends a request and decodes the body of its answer into reply.
func (c *Client) call(ctx context.Context, typ Type, body, reply any, fds ...int) error {
	asked, err := c.request(ctx, typ, body, fds...)
	if err != nil {
		return err
	}
	return asked.settle(ctx, reply)
}

// pending is a request that was sent and is not answered yet.
type pending struct {
	client *Client
	typ    Type
	id     uint32
	answer <-chan Packet
}

func (c *Client) request(ctx context.Context, typ Type, body any, fds ...int) (pending, error) {
	p, err := MakePacket(typ, 0, body)
	if err != nil {
		return pending{}, err
	}
	answer := make(chan Packet, 1)
	if p.ID, err = c.expect(answer); err != nil {
		return pending{}, err
	}
	p.FDs = fds
	if err := c.sendInTurn(ctx, p); err != nil {
		c.abandon(p.ID)
		return pending{}, err
	}
	return pending{client: c, typ: typ, id: p.ID, answer: answer}, nil
}

// settle waits for the answer and decodes its body into reply.
func (p pending) settle(ctx context.Context, reply any) error {
	select {
	case got, ok := <-p.answer:
		if !ok {
			return p.client.endedErr()
		}
		return got.settle(p.typ, reply)
	case <-ctx.Done():
		p.client.abandon(p.id)
		return fmt.Errorf("waiting for the shim's answer to %s: %w", p.typ, ctx.Err())
	}
}

// sendInTurn sends p when those who came before have sent. The socket of a shim
// that is stopped fills up: nobody waits there beyond his own time.
func (c *Client) sendInTurn(ctx context.Context, p Packet) error {
	select {
	case c.send <- struct{}{}:
		defer func() { <-c.send }()
		return c.conn.Send(ctx, p)
	case <-ctx.Done():
		return fmt.Errorf("waiting to send %s to the shim: %w", p.Type, ctx.Err())
	}
}

// expect registers answer under a new request id.
func (c *Client) expect(answer chan Packet) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return 0, c.ended
	}
	for {
		c.last++
		if _, taken := c.waiting[c.last]; !taken && c.last != 0 {
			c.waiting[c.last] = answer
			return c.last, nil
		}
	}
}

func (c *Client) abandon(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) endedErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// settle turns an answer into its reply or its error.
func (p Packet) settle(asked Type, reply any) error {
	switch p.Type {
	case Ok:
		if reply == nil {
			return nil
		}
		return p.Decode(reply)
	case Error:
		var wire errdefs.Wire
		if err := p.Decode(&wire); err != nil {
			return err
		}
		return wire.Err()
	}
	return errdefs.Internal.Errorf("the shim answered %s with %s", asked, p.Type)
}

// Hello makes this client one that gets notes and returns what the shim is.
func (c *Client) Hello(ctx context.Context) (HelloReply, error) {
	var reply HelloReply
	err := c.call(ctx, Hello, nil, &reply)
	return reply, err
}

// Opening is a Hello with a Start behind it, sent before the shim is there to
// take them: it need not be waited for between the two.
type Opening struct{ hello, start pending }

// Open sends Hello and Start. The shim answers the one before it begins the
// other: a Hello that was never answered has started nothing.
func (c *Client) Open(ctx context.Context, process string) (*Opening, error) {
	hello, err := c.request(ctx, Hello, nil)
	if err != nil {
		return nil, err
	}
	start, err := c.request(ctx, Start, ProcessRef{process})
	if err != nil {
		return nil, err
	}
	return &Opening{hello, start}, nil
}

// Greeted waits for the answer to Hello.
func (o *Opening) Greeted(ctx context.Context) (HelloReply, error) {
	var reply HelloReply
	err := o.hello.settle(ctx, &reply)
	return reply, err
}

// Started waits until the process has started.
func (o *Opening) Started(ctx context.Context) (Started, error) {
	var reply Started
	err := o.start.settle(ctx, &reply)
	return reply, err
}

// Start starts the process that process/request.json describes.
func (c *Client) Start(ctx context.Context, process string) (Started, error) {
	var reply Started
	err := c.call(ctx, Start, ProcessRef{process}, &reply)
	return reply, err
}

// Resume starts a container that Start created with create_only.
func (c *Client) Resume(ctx context.Context) (Started, error) {
	var reply Started
	err := c.call(ctx, Resume, nil, &reply)
	return reply, err
}

// Signal sends a signal to a process.
func (c *Client) Signal(ctx context.Context, process string, signal int) error {
	return c.call(ctx, Signal, SignalRequest{process, signal}, nil)
}

// Resize sets the size of a process's terminal.
func (c *Client) Resize(ctx context.Context, process string, width, height uint16) error {
	return c.call(ctx, Resize, ResizeRequest{process, width, height}, nil)
}

// CloseStdin closes a process's standard input.
func (c *Client) CloseStdin(ctx context.Context, process string) error {
	return c.call(ctx, CloseStdin, ProcessRef{process}, nil)
}

// Attach hands the connection behind fd, a stream socket, to the shim. The
// caller closes its own descriptor afterwards; the connection lives on.
func (c *Client) Attach(ctx context.Context, req AttachRequest, fd uintptr) error {
	return c.call(ctx, Attach, req, nil, int(fd))
}

// Release lets output flow that waits for Request.AwaitAttach.
func (c *Client) Release(ctx context.Context, process string) error {
	return c.call(ctx, Release, ProcessRef{process}, nil)
}

// Forget gives back what the shim holds of an exited process.
func (c *Client) Forget(ctx context.Context, process string) error {
	return c.call(ctx, Forget, ProcessRef{process}, nil)
}

// List returns the names of the processes that were started and not forgotten, in
// their order. A shim that is older than the request answers NotImplemented.
func (c *Client) List(ctx context.Context) (names []string, err error) {
	for after := ""; ; {
		var reply ListReply
		if err := c.call(ctx, List, ListRequest{after}, &reply); err != nil {
			return nil, err
		}
		names = append(names, reply.Processes...)
		if !reply.More || len(reply.Processes) == 0 {
			return names, nil
		}
		after = names[len(names)-1]
	}
}

// Delete removes the container by force and ends the shim.
func (c *Client) Delete(ctx context.Context) error {
	return c.call(ctx, Delete, nil, nil)
}
