package dbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection to a bus or to a peer.
type Conn struct {
	fd      int
	serial  uint32
	input   []byte     // read and not yet decoded
	signals []*Message // arrived and not yet asked for
}

// CallError is an error that the other side answered.
type CallError struct{ Name, Text string }

func (e *CallError) Error() string { return e.Text }

// DialPeer connects to a socket with one peer behind it, as systemd's private one.
func DialPeer(ctx context.Context, path string) (*Conn, error) {
	fd, err := connect(path)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", path, err)
	}
	c := &Conn{fd: fd}
	if err := c.authorise(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("connecting to %s: %w", path, err)
	}
	return c, nil
}

// DialBus connects to the bus at a D-Bus address.
func DialBus(ctx context.Context, address string) (*Conn, error) {
	path, err := socketPath(address)
	if err != nil {
		return nil, err
	}
	c, err := DialPeer(ctx, path)
	if err != nil {
		return nil, err
	}
	if _, err := c.bus(ctx, "Hello"); err != nil {
		c.Close()
		return nil, fmt.Errorf("greeting the bus at %s: %w", path, err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Match asks the bus for signals that fit the rule.
func (c *Conn) Match(ctx context.Context, rule string) error {
	_, err := c.bus(ctx, "AddMatch", rule)
	return err
}

// bus calls the bus itself.
func (c *Conn) bus(ctx context.Context, method string, args ...any) ([]any, error) {
	return c.Call(ctx, &Message{
		Destination: "org.freedesktop.DBus", Path: "/org/freedesktop/DBus",
		Interface: "org.freedesktop.DBus", Member: method, Body: args,
	})
}

// authorise has the other side take who we are from the socket. All is sent at
// once; the answers are "DATA" and "OK guid".
func (c *Conn) authorise(ctx context.Context) error {
	if err := c.send(ctx, []byte("\x00AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")); err != nil {
		return err
	}
	for {
		line, err := c.line(ctx)
		switch {
		case err != nil:
			return err
		case bytes.HasPrefix(line, []byte("OK")):
			return nil
		case !bytes.HasPrefix(line, []byte("DATA")):
			return fmt.Errorf("D-Bus authorisation failed: %q", line)
		}
	}
}

// line reads one line of the authorisation.
func (c *Conn) line(ctx context.Context) ([]byte, error) {
	for {
		if line, rest, ok := bytes.Cut(c.input, []byte("\r\n")); ok {
			c.input = rest
			return line, nil
		}
		if len(c.input) > 16<<10 {
			return nil, malformed("an authorisation line of %d bytes", len(c.input))
		}
		if err := c.receive(ctx); err != nil {
			return nil, err
		}
	}
}

// Call calls a method and returns what it returns. The error of a method is a
// *CallError.
func (c *Conn) Call(ctx context.Context, call *Message) ([]any, error) {
	c.serial++
	if c.serial == maxSerial {
		return nil, errors.New("D-Bus connection used up")
	}
	call.Kind, call.Serial = MethodCall, c.serial
	data, err := call.encode()
	if err != nil {
		return nil, err
	}
	if err := c.send(ctx, data); err != nil {
		return nil, err
	}
	for {
		m, err := c.next(ctx)
		switch {
		case err != nil:
			return nil, err
		case m.Kind == Signal:
			c.signals = append(c.signals, m)
		case m.ReplySerial != call.Serial:
		case m.Kind == MethodReturn:
			return m.Body, nil
		case m.Kind == Error:
			return nil, callError(m)
		}
	}
}

func callError(m *Message) error {
	e := &CallError{Name: m.ErrorName, Text: m.ErrorName}
	if len(m.Body) > 0 {
		if text, ok := m.Body[0].(string); ok && text != "" {
			e.Text = text
		}
	}
	return e
}

// Await returns the next signal that fits, of those that came and those to
// come. Others are dropped.
func (c *Conn) Await(ctx context.Context, fits func(*Message) bool) (*Message, error) {
	for {
		for len(c.signals) > 0 {
			m := c.signals[0]
			if c.signals = c.signals[1:]; fits(m) {
				return m, nil
			}
		}
		m, err := c.next(ctx)
		if err != nil {
			return nil, err
		}
		if m.Kind == Signal {
			c.signals = append(c.signals, m)
		}
	}
}

// next reads a message.
func (c *Conn) next(ctx context.Context) (*Message, error) {
	for {
		size, err := messageSize(c.input)
		if err != nil {
			return nil, err
		}
		if size > 0 && len(c.input) >= size {
			m, err := decodeMessage(c.input[:size])
			c.input = c.input[size:]
			return m, err
		}
		if err := c.receive(ctx); err != nil {
			return nil, err
		}
	}
}

// receive reads what there is, and waits until there is some.
func (c *Conn) receive(ctx context.Context) error {
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(c.fd, buffer)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = c.poll(ctx, unix.POLLIN)
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && n == 0:
			err = errors.New("the D-Bus connection was closed by the other side")
		case err == nil:
			c.input = append(c.input, buffer[:n]...)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *Conn) send(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		n, err := unix.SendmsgN(c.fd, data, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = c.poll(ctx, unix.POLLOUT)
		case errors.Is(err, unix.EINTR):
			continue
		}
		if err != nil {
			return fmt.Errorf("sending to D-Bus: %w", err)
		}
		data = data[max(n, 0):]
	}
	return nil
}

// poll waits for the socket. It looks at ctx every 100 ms: a context has no
// descriptor to poll beside.
func (c *Conn) poll(ctx context.Context, events int16) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := 100 * time.Millisecond
		if deadline, ok := ctx.Deadline(); ok {
			wait = max(min(wait, time.Until(deadline)), 0)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: events}}, int(wait.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
