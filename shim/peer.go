package shim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// maxUnsent is how many packets wait for a peer that does not read. What a
// dropped peer misses it finds in the files.
const maxUnsent = 1024

// peer is a connection to our socket.
type peer struct {
	s      *Shim
	fd     int // -1 once closed
	source *source
	notes  bool // it said Hello
	unsent [][]byte
}

func (s *Shim) listen() error {
	unix.CloseOnExec(proto.SocketFD)
	if err := unix.SetNonblock(proto.SocketFD, true); err != nil {
		return fmt.Errorf("descriptor %d, expected the listening socket: %w", proto.SocketFD, err)
	}
	var err error
	s.listener, err = s.add(proto.SocketFD, unix.EPOLLIN, func(uint32) { s.accept() })
	return err
}

func (s *Shim) accept() {
	fd, _, err := unix.Accept4(proto.SocketFD, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
			logf("accepting a connection: %v", err)
		}
		return
	}
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || credentials.Uid != 0 && int(credentials.Uid) != os.Geteuid() {
		logf("refused a connection, credentials %+v, %v", credentials, err)
		unix.Close(fd)
		return
	}
	p := &peer{s: s, fd: fd}
	if p.source, err = s.add(fd, unix.EPOLLIN, p.ready); err != nil {
		logf("%v", err)
		unix.Close(fd)
		return
	}
	s.peers[p] = struct{}{}
}

func (p *peer) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		p.flush()
	}
	if p.fd < 0 || events&^unix.EPOLLOUT == 0 {
		return
	}
	n, fds, err := proto.ReceiveMessage(p.fd, p.s.memory.input)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err != nil || n == 0:
		closeAll(fds...)
		p.close()
		return
	}
	packet, err := proto.ParsePacket(p.s.memory.input[:n])
	if err != nil {
		closeAll(fds...)
		p.refuse(packet.ID, err)
		return
	}
	packet.FDs = fds
	p.handle(packet)
}

// answer answers a request with Ok or, if err is not nil, with Error.
func (p *peer) answer(id uint32, body any, err error) {
	if err != nil {
		p.refuse(id, err)
		return
	}
	packet, err := proto.MakePacket(proto.Ok, id, body)
	if err != nil {
		p.refuse(id, err)
		return
	}
	p.send(packet)
}

// maxText bounds an error's text so that, escaped, it fits into a packet.
const maxText = proto.MaxBody / 8

func (p *peer) refuse(id uint32, err error) {
	wire := errdefs.ToWire(err)
	wire.Text = wire.Text[:min(len(wire.Text), maxText)]
	wire.Subject = wire.Subject[:min(len(wire.Subject), maxText/8)]
	packet, err := proto.MakePacket(proto.Error, id, wire)
	if err != nil {
		logf("%v", err)
		return
	}
	p.send(packet)
}

// send sends a packet, or queues it.
func (p *peer) send(packet proto.Packet) {
	if p.fd < 0 {
		return
	}
	p.unsent = append(p.unsent, proto.AppendPacket(nil, packet))
	if len(p.unsent) > maxUnsent {
		logf("a peer that does not read is cut off")
		p.close()
		return
	}
	p.flush()
}

func (p *peer) flush() {
	for len(p.unsent) > 0 {
		_, err := unix.SendmsgN(p.fd, p.unsent[0], nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			p.s.want(p.source, unix.EPOLLIN|unix.EPOLLOUT)
			return
		case err != nil:
			p.close()
			return
		}
		p.unsent = p.unsent[1:]
	}
	p.unsent = nil
	p.s.want(p.source, unix.EPOLLIN)
}

func (p *peer) close() {
	if p.fd >= 0 {
		p.s.remove(p.source)
		unix.Close(p.fd)
		p.fd, p.unsent = -1, nil
		delete(p.s.peers, p)
	}
}

// tell sends a note to all who said Hello.
func (s *Shim) tell(typ proto.Type, body any) {
	packet, err := proto.MakePacket(typ, 0, body)
	if err != nil {
		logf("%v", err)
		return
	}
	for p := range s.peers {
		if p.notes {
			p.send(packet)
		}
	}
}

func (p *peer) hello(id uint32) {
	p.notes = true
	p.answer(id, proto.HelloReply{ID: p.s.ID, Self: p.s.self}, nil)
}
