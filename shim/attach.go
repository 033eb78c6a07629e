package shim

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// attach takes over a client's connection. On error the descriptor stays the
// caller's.
func (s *Shim) attach(req proto.AttachRequest, fd int) error {
	p, err := s.find(req.Process)
	if err != nil {
		return err
	}
	if p.phase == finished || p.phase == dead && p.awaiting == 0 {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, req.Process, "process %s of container %s has exited", req.Process, s.ID)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_STREAM {
		return errdefs.InvalidArgument.Errorf("the descriptor of an Attach packet is no stream socket")
	}
	k := &sink{
		s: s, p: p, fd: fd, framed: !p.request.Terminal,
		stdout: req.Stdout, stderr: req.Stderr, stdin: req.Stdin && p.takesInput(), keys: keysFor(p, req.DetachKeys),
		awaited: p.awaiting > 0,
	}
	if p.request.Terminal { // where stderr is stdout
		k.stdout = req.Stdout || req.Stderr
	}
	if k.source, err = s.add(fd, 0, k.ready); err != nil {
		return fmt.Errorf("watching the client's connection: %w", err)
	}
	s.sinks[k] = struct{}{}
	p.sinks = append(p.sinks, k)
	k.update()
	if k.stdin && len(req.Read) > 0 {
		k.feed(req.Read)
	}
	p.joined()
	return nil
}

// takesInput reports whether clients can send to the process. While it is
// starting its terminal is not there yet.
func (p *process) takesInput() bool {
	return p.request.OpenStdin || p.request.Stdin != ""
}

func keysFor(p *process, asked []byte) *detachKeys {
	switch {
	case len(asked) > 0:
		return &detachKeys{keys: append([]byte(nil), asked...)}
	case p.request.Terminal:
		return &detachKeys{keys: defaultDetachKeys}
	}
	return nil
}

// joined counts a client that was awaited.
func (p *process) joined() {
	if p.awaiting == 1 {
		p.release()
	} else if p.awaiting > 1 {
		p.awaiting--
	}
}

// release lets output flow, whoever is still awaited.
func (p *process) release() {
	if p.await != nil {
		p.s.stop(p.await)
		p.await = nil
	}
	if p.awaiting == 0 {
		return
	}
	p.awaiting = 0
	p.flow()
	p.s.settleExit(p)
}
