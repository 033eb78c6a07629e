package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// FirstFD is the number in criu of the first of Start's files: after stdio and
// the socket.
const FirstFD = 4

// Process is a criu that serves one request.
type Process struct {
	command *exec.Cmd
	socket  int
	stderr  *bytes.Buffer // nil if criu has the container's
	message string        // of a response that says no
}

// Start starts `binary swrk`. stdio is what a restored process gets; nil is
// for requests that restore nothing. files become criu's from FirstFD on.
func Start(binary string, stdio []*os.File, files []*os.File) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "criu")
	defer theirs.Close()
	p := &Process{command: exec.Command(binary, "swrk", "3"), socket: pair[0]}
	if stdio != nil {
		p.command.Stdin, p.command.Stdout, p.command.Stderr = stdio[0], stdio[1], stdio[2]
	} else {
		p.stderr = new(bytes.Buffer)
		p.command.Stderr = p.stderr
	}
	p.command.ExtraFiles = append([]*os.File{theirs}, files...)
	if err := p.command.Start(); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("starting criu: %w", err)
	}
	return p, nil
}

// Pid is criu's own.
func (p *Process) Pid() int { return p.command.Process.Pid }

// Close ends the conversation and waits for criu, which then ends, too.
func (p *Process) Close() error {
	if p.socket < 0 {
		return nil
	}
	unix.Close(p.socket)
	p.socket = -1
	return p.command.Wait()
}

// Abort ends criu, whatever it is doing.
func (p *Process) Abort() {
	if p.socket >= 0 {
		p.command.Process.Kill() //nolint:errcheck // it may have ended
		p.Close()                // it was killed
	}
}

// Serve sends a request and returns its response. Each notification on the way
// is handed to notify, with the descriptor that came along or -1, which notify
// owns; its failure is told to criu, which then gives up.
func (p *Process) Serve(ctx context.Context, request *Request, notify func(r *Response, fd int) error) (*Response, error) {
	stop := context.AfterFunc(ctx, func() { p.command.Process.Kill() }) //nolint:errcheck // it may have ended
	defer stop()
	if err := p.send(request); err != nil {
		return nil, p.explain(ctx, err)
	}
	var refused error
	for {
		response, fd, err := p.receive()
		if err != nil {
			return nil, errors.Join(refused, p.explain(ctx, err))
		}
		if response.Type != Notify || !response.Success {
			if fd >= 0 {
				unix.Close(fd)
			}
			return response, errors.Join(refused, p.check(request.Type, response))
		}
		if err := notify(response, fd); err != nil && refused == nil {
			refused = fmt.Errorf("%s: %w", response.Script, err)
		}
		if err := p.send(&Request{Type: Notify, NotifySuccess: refused == nil}); err != nil {
			return nil, errors.Join(refused, p.explain(ctx, err))
		}
	}
}

// check words a failure as runc does.
func (p *Process) check(wanted Type, response *Response) error {
	switch {
	case !response.Success:
		p.message = strings.TrimSpace(response.Message)
		return fmt.Errorf("criu failed: type %s errno %d", response.Type, response.Errno)
	case response.Type != wanted:
		return errdefs.Internal.Errorf("criu answered a request of type %s with %s", wanted, response.Type)
	}
	return nil
}

// explain adds what criu said without a log, and the end of ctx, for which it may have been
// killed.
func (p *Process) explain(ctx context.Context, err error) error {
	if reasons := p.Reasons(); len(reasons) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.Join(reasons, "\n"))
	}
	return errors.Join(ctx.Err(), err)
}

// Reasons waits for a criu that has failed and returns the first errors that it
// reported before it had a log. A restored container's standard error is not
// looked at.
func (p *Process) Reasons() []string {
	if p.stderr != nil {
		p.Close() // it has failed; its words are what counts
		if found := reasons(p.stderr); len(found) > 0 {
			return found
		}
	}
	if p.message != "" {
		return []string{p.message}
	}
	return nil
}

func (p *Process) send(request *Request) error {
	for {
		err := unix.Send(p.socket, request.Encode(), unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("talking to criu: %w", err)
		}
		return nil
	}
}

// maxResponse bounds a packet; those of criu have tens of bytes.
const maxResponse = 64 << 10

// receive returns the next response, and a descriptor or -1.
func (p *Process) receive() (*Response, int, error) {
	data, control := make([]byte, maxResponse), make([]byte, unix.CmsgSpace(4*4))
	for {
		n, controls, _, _, err := unix.Recvmsg(p.socket, data, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ECONNRESET):
			return nil, -1, fmt.Errorf("listening to criu: %w", err)
		case n <= 0:
			return nil, -1, errdefs.Internal.Errorf("criu ended without an answer")
		}
		fd, err := descriptor(control[:controls])
		if err != nil {
			return nil, -1, err
		}
		response, err := DecodeResponse(data[:n])
		if err != nil && fd >= 0 {
			unix.Close(fd)
		}
		return response, fd, err
	}
}

// descriptor takes the one that came along.
func descriptor(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1, fmt.Errorf("listening to criu: %w", err)
	}
	found := -1
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, if criu sends them
		}
		for _, fd := range fds {
			if found >= 0 {
				unix.Close(fd)
				continue
			}
			found = fd
		}
	}
	return found, nil
}

// Ask serves a request that has no options, in a criu of its own.
func Ask(ctx context.Context, binary string, request *Request) (*Response, error) {
	p, err := Start(binary, nil, nil)
	if err != nil {
		return nil, err
	}
	defer p.Abort()
	return p.Serve(ctx, request, func(*Response, int) error { return nil })
}
