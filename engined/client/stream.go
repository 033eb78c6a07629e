package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// streams is the connection to a process and what is on our side of it.
type streams struct {
	conn       client.HijackedResponse
	in         io.Reader // nil: none is sent
	out, err   io.Writer
	tty        bool
	detachKeys string // "": the default
}

// copy moves bytes both ways until the process's output ends, or the user
// detaches (errDetached) or ctx ends. The terminal is raw meanwhile.
func (s *streams) copy(ctx context.Context) error {
	if s.tty && s.in != nil {
		restore, err := rawTerminal(s.in)
		if err != nil {
			return err
		}
		defer restore()
	}
	input, err := s.input()
	if err != nil {
		return err
	}
	output := make(chan error, 1)
	go func() { output <- s.receive() }()
	detached := make(chan error, 1)
	if input != nil {
		// It blocks in a read of our standard input, which nothing ends: it
		// ends with the command.
		go func() { s.send(input, detached) }()
	}
	select {
	case err := <-output:
		return err
	case err := <-detached:
		s.conn.Close()
		<-output //nolint:errcheck // it ends because the connection was closed
		return err
	case <-ctx.Done():
		s.conn.Close()
		<-output //nolint:errcheck // of what was closed
		return ctx.Err()
	}
}

func (s *streams) input() (io.Reader, error) {
	if s.in == nil || !s.tty {
		return s.in, nil
	}
	text := s.detachKeys
	if text == "" {
		text = defaultDetachKeys
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, err
	}
	return &detacher{in: s.in, keys: keys}, nil
}

func (s *streams) send(input io.Reader, detached chan<- error) {
	_, err := io.Copy(s.conn.Conn, input)
	if errors.Is(err, errDetached) {
		detached <- err
		return
	}
	_ = s.conn.CloseWrite() // our end of input is the process's
}

func (s *streams) receive() error {
	if s.tty {
		_, err := io.Copy(s.out, s.conn.Reader)
		return err
	}
	_, err := stdcopy.StdCopy(s.out, s.err, s.conn.Reader)
	return err
}

// notProxied are signals that are about this process, not about its container.
var notProxied = map[os.Signal]bool{
	unix.SIGCHLD: true, unix.SIGPIPE: true, unix.SIGURG: true, unix.SIGWINCH: true,
	unix.SIGTSTP: true, unix.SIGTTIN: true, unix.SIGTTOU: true, unix.SIGCONT: true,
}

// proxySignals gives every signal that we get to a container, until the
// returned function is called.
func proxySignals(ctx context.Context, api *client.Client, id string, messages io.Writer) (stop func()) {
	caught := make(chan os.Signal, 16)
	signal.Notify(caught)
	done := make(chan struct{})
	end := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case got := <-caught:
				proxy(ctx, api, id, got, messages)
			case <-end:
				return
			}
		}
	}()
	return func() {
		signal.Stop(caught)
		close(end)
		<-done
	}
}

func proxy(ctx context.Context, api *client.Client, id string, got os.Signal, messages io.Writer) {
	number, ok := got.(unix.Signal)
	if !ok || notProxied[got] {
		return
	}
	if _, err := api.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: fmt.Sprint(int(number))}); err != nil {
		fmt.Fprintf(messages, "engined: passing signal %v on: %v\n", got, err)
	}
}
