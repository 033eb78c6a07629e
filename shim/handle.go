package shim

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// handle carries out one request. The packet's body is in memory that the next
// read overwrites: it is decoded before anything else happens.
func (p *peer) handle(packet proto.Packet) {
	if packet.Type != proto.Attach {
		closeAll(packet.FDs...)
	}
	switch packet.Type {
	case proto.Hello:
		p.hello(packet.ID)
	case proto.Start:
		var ref proto.ProcessRef
		if p.decode(packet, &ref) {
			p.s.start(ref.Process, p.startedAnswer(packet.ID))
		}
	case proto.Resume:
		p.s.resume(p.startedAnswer(packet.ID))
	case proto.Signal:
		var req proto.SignalRequest
		if p.decode(packet, &req) {
			p.answer(packet.ID, nil, p.s.signal(req))
		}
	case proto.Resize:
		var req proto.ResizeRequest
		if p.decode(packet, &req) {
			p.answer(packet.ID, nil, p.s.resize(req))
		}
	case proto.CloseStdin:
		p.withProcess(packet, p.s.closeStdin)
	case proto.Attach:
		p.attach(packet)
	case proto.Release:
		p.withProcess(packet, p.s.release)
	case proto.Forget:
		p.withProcess(packet, p.s.forget)
	case proto.List:
		var req proto.ListRequest
		if p.decode(packet, &req) {
			p.answer(packet.ID, p.s.list(req.After), nil)
		}
	case proto.Delete:
		p.s.delete(func(err error) { p.answer(packet.ID, nil, err) })
	default:
		p.refuse(packet.ID, errdefs.NotImplemented.Errorf("the shim has no packet of %s", packet.Type))
	}
}

// decode decodes the body, or refuses the packet.
func (p *peer) decode(packet proto.Packet, body any) bool {
	err := packet.Decode(body)
	if err != nil {
		p.refuse(packet.ID, err)
	}
	return err == nil
}

func (p *peer) withProcess(packet proto.Packet, do func(name string) error) {
	var ref proto.ProcessRef
	if p.decode(packet, &ref) {
		p.answer(packet.ID, nil, do(ref.Process))
	}
}

func (p *peer) startedAnswer(id uint32) func(proto.Started, error) {
	return func(started proto.Started, err error) { p.answer(id, started, err) }
}

func (p *peer) attach(packet proto.Packet) {
	var req proto.AttachRequest
	if !p.decode(packet, &req) {
		closeAll(packet.FDs...)
		return
	}
	if len(packet.FDs) != 1 {
		closeAll(packet.FDs...)
		p.refuse(packet.ID, errdefs.InvalidArgument.Errorf("an Attach packet came with %d descriptors, expected one", len(packet.FDs)))
		return
	}
	err := p.s.attach(req, packet.FDs[0])
	if err != nil {
		closeAll(packet.FDs...)
	}
	p.answer(packet.ID, nil, err)
}

func (s *Shim) signal(req proto.SignalRequest) error {
	p, err := s.alive(req.Process)
	if err != nil {
		return err
	}
	if req.Signal < 0 || req.Signal > 64 {
		return errdefs.InvalidArgument.Errorf("signal is %d, expected 0 to 64", req.Signal)
	}
	if p.child == nil {
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, req.Process, "process %s has not started yet", req.Process)
	}
	err = p.child.kill(unix.Signal(req.Signal))
	if errors.Is(err, unix.ESRCH) { // dead, and its status on the way to us
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, req.Process, "process %s has exited", req.Process)
	}
	return err
}

func (s *Shim) resize(req proto.ResizeRequest) error {
	p, err := s.alive(req.Process)
	if err != nil {
		return err
	}
	return p.resize(req.Width, req.Height)
}

// closeStdin ends the process's stdin, after what its fifo holds. A terminal's
// input only takes no more.
func (s *Shim) closeStdin(name string) error {
	p, err := s.alive(name)
	if err != nil {
		return err
	}
	if p.input != nil {
		p.takeFifo()
		p.input.end()
	}
	return nil
}

func (s *Shim) release(name string) error {
	p, err := s.find(name)
	if err != nil {
		return err
	}
	p.release()
	return nil
}

func notExited(p *process) error {
	return errdefs.FailedPrecondition.Coded(errdefs.Running, p.name, "process %s has not exited", p.name)
}
