package container

import (
	"context"
	"fmt"
	"net"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/logs"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// Attach gives a client's connection to the container: to the shim of one that
// runs, else it is parked for the next start. A start looks for parked ones
// twice, before its call and after the record says that the container runs, so
// none stays behind.
func (s *Service) Attach(ctx context.Context, ref string, options AttachOptions, upgrade Upgrade) error {
	c, err := s.index.find(ref)
	if err != nil {
		return err
	}
	r := c.record.Load()
	if err := allow(attaching, r); err != nil {
		return err
	}
	keys, err := parseKeys(options.DetachKeys)
	if err != nil {
		return err
	}
	var p *parking
	var socket string
	if options.Stream {
		if p, socket, err = c.park(); err != nil {
			return err
		}
	}
	conn, ahead, err := upgrade(r.Config.Tty)
	if err == nil {
		s.tell(r, apievents.ActionAttach, nil)
		err = s.replay(ctx, r, options, conn)
	}
	if err != nil && p != nil {
		c.fail(p)
	}
	if err != nil || !options.Stream {
		return hangUp(conn, err)
	}
	req := shim.AttachRequest{
		Process: initProcess,
		Stdin:   options.Stdin && r.Config.OpenStdin,
		Stdout:  options.Stdout, Stderr: options.Stderr,
		DetachKeys: keys, Read: ahead,
	}
	if p == nil {
		return s.Tasks.Attach(context.WithoutCancel(ctx), socket, req, conn)
	}
	c.arrive(p, conn, req)
	return nil
}

// hangUp closes a connection, if there is one.
func hangUp(conn net.Conn, err error) error {
	if conn != nil {
		conn.Close()
	}
	return err
}

// replay writes what was logged so far, if that is wanted, in the form of the
// stream.
func (s *Service) replay(ctx context.Context, r *Record, options AttachOptions, conn net.Conn) error {
	if !options.Logs {
		return nil
	}
	spec, err := logSpec(r, s.logPath(r.ID))
	if err != nil || spec == nil {
		return err
	}
	request := logs.Request{
		Driver: spec.Driver, Path: spec.Path,
		Stdout: options.Stdout, Stderr: options.Stderr, Framed: !r.Config.Tty,
	}
	request.Read.Tail = -1
	return logs.Copy(ctx, request, conn)
}

// handOver gives the parked connections to the shim, which was told to expect
// that many. One that fails has lost its client.
func (s *Service) handOver(ctx context.Context, c *container, socket string, parked []*parking) {
	for _, p := range parked {
		conn, req := p.take(ctx)
		if conn == nil {
			continue
		}
		if err := s.Tasks.Attach(ctx, socket, req, conn); err != nil {
			s.Logger.Warn("attaching a client that waited for the start", "container", c.id, "error", err)
		}
	}
}

// parseKeys reads a sequence as "ctrl-p,ctrl-q" or "a,b" into the bytes that a
// terminal sends.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	var keys []byte
	for len(text) > 0 {
		key, rest := text, ""
		for i := 1; i < len(text); i++ { // the first byte may be a comma itself
			if text[i] == ',' {
				key, rest = text[:i], text[i+1:]
				break
			}
		}
		code, err := parseKey(key)
		if err != nil {
			return nil, err
		}
		keys, text = append(keys, code), rest
	}
	return keys, nil
}

func parseKey(key string) (byte, error) {
	const control = "ctrl-"
	if len(key) == 1 {
		return key[0], nil
	}
	if len(key) == len(control)+1 && key[:len(control)] == control {
		letter := key[len(control)]
		switch {
		case letter >= 'a' && letter <= 'z':
			return letter - 'a' + 1, nil
		case letter == '@':
			return 0, nil
		case letter >= '[' && letter <= '_':
			return letter - '[' + 27, nil
		}
	}
	return 0, errdefs.InvalidArgument.Errorf("%s", fmt.Sprintf("invalid detach keys (%s): expected single characters or ctrl-, with a-z, @, [, \\, ], ^ or _", key))
}
