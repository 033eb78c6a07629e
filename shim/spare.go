package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// RunSpare is the life of a shim that was started ahead: it waits for a container
// and serves it, or ends when the supervisor no longer has one for it.
func RunSpare() error {
	s, err := open()
	if err != nil {
		return err
	}
	if err := rehearse(); err != nil {
		return err
	}
	config, err := s.adopted()
	if err != nil || config == (Config{}) {
		return err
	}
	failpoint.At("shim-adopted")
	return s.serve(config)
}

// rehearse decodes and encodes once what every start does: package json prepares
// itself for each type when it first meets it, which takes longer than the rest.
func rehearse() error {
	for _, v := range []any{new(proto.Container), new(proto.ProcessRef), new(proto.Request)} {
		if err := json.Unmarshal([]byte("{}"), v); err != nil {
			return err
		}
	}
	for _, v := range []any{proto.Self{}, proto.HelloReply{}, proto.Started{}} {
		if _, err := json.Marshal(v); err != nil {
			return err
		}
	}
	return nil
}

// adopted waits for an Adopt and becomes the shim that it describes. The config is
// empty if none comes any more.
func (s *Shim) adopted() (Config, error) {
	unix.CloseOnExec(proto.SocketFD)
	n, fds, err := proto.ReceiveMessage(proto.SocketFD, s.memory.input)
	for errors.Is(err, unix.EINTR) {
		n, fds, err = proto.ReceiveMessage(proto.SocketFD, s.memory.input)
	}
	if err != nil {
		return Config{}, fmt.Errorf("descriptor %d, expected a connection: %w", proto.SocketFD, err)
	}
	defer closeAll(fds...)
	if n == 0 {
		return Config{}, nil
	}
	packet, err := proto.ParsePacket(s.memory.input[:n])
	if err != nil {
		return Config{}, err
	}
	var adoption proto.Adoption
	if packet.Type != proto.Adopt || len(fds) != 2 {
		return Config{}, errdefs.InvalidArgument.Errorf("a spare shim got a packet of %s with %d descriptors, expected Adopt with two", packet.Type, len(fds))
	}
	if err := packet.Decode(&adoption); err != nil {
		return Config{}, err
	}
	return Config{adoption.ID, adoption.Bundle, adoption.Runtime}, become(adoption, fds[0], fds[1])
}

// become takes the place of a shim that was started with this directory, socket
// and log.
func become(adoption proto.Adoption, socket, log int) error {
	if err := os.Chdir(adoption.Dir); err != nil {
		return err
	}
	if err := errors.Join(unix.Dup3(log, unix.Stderr, 0), unix.Dup3(socket, proto.SocketFD, 0)); err != nil {
		return fmt.Errorf("taking over the container's descriptors: %w", err)
	}
	retitle([]string{os.Args[0], adoption.ID, adoption.Bundle, adoption.Runtime})
	return nil
}

// retitle makes args the command line that others see: who looks for a
// container's shim looks there. What does not fit stays as it was.
func retitle(args []string) {
	room, title := 0, ""
	for _, arg := range os.Args {
		room += len(arg) + 1
	}
	for _, arg := range args {
		title += arg + "\x00"
	}
	if len(title) > room {
		return
	}
	// The kernel has laid the arguments one behind the other.
	line := unsafe.Slice(unsafe.StringData(os.Args[0]), room)
	os.Args = nil // strings in that memory
	clear(line[copy(line, title):])
	// Without it, which takes a privilege, zero bytes follow the last argument.
	_ = unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_ARG_END, uintptr(unsafe.Pointer(&line[0]))+uintptr(len(title)), 0, 0)
}
