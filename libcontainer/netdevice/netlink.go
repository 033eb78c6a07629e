package netdevice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// netlink is a route socket. It stays in the namespace in which it was made.
type netlink struct {
	fd       int
	sequence uint32
}

func newNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return &netlink{fd: fd}, nil
}

// newNetlinkIn makes the socket inside a namespace. The thread that went there
// comes back, or ends with its goroutine.
func newNetlinkIn(namespace int) (*netlink, error) {
	type answer struct {
		socket *netlink
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread()
		socket, home, err := visit(namespace)
		if home {
			runtime.UnlockOSThread()
		}
		done <- answer{socket, err}
	}()
	a := <-done
	return a.socket, a.err
}

func visit(namespace int) (socket *netlink, home bool, err error) {
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, true, err
	}
	defer unix.Close(own)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return nil, true, fmt.Errorf("visiting the container's network namespace: %w", err)
	}
	socket, err = newNetlink()
	return socket, unix.Setns(own, unix.CLONE_NEWNET) == nil, err
}

func (n *netlink) close() { unix.Close(n.fd) }

// attribute is a struct rtattr with its value.
type attribute struct {
	kind  uint16
	value []byte
}

func number(kind uint16, value uint32) attribute {
	return attribute{kind, binary.NativeEndian.AppendUint32(nil, value)}
}

func text(kind uint16, value string) attribute { return attribute{kind, append([]byte(value), 0)} }

func align(n int) int { return (n + 3) &^ 3 }

// encode lays out header, body and attributes, each aligned to 4 bytes.
func encode(kind, flags uint16, sequence uint32, body []byte, attributes []attribute) []byte {
	out := make([]byte, unix.NLMSG_HDRLEN, 256)
	out = append(out, body...)
	for _, a := range attributes {
		out = append(out, make([]byte, align(len(out))-len(out))...)
		out = binary.NativeEndian.AppendUint16(out, uint16(4+len(a.value)))
		out = binary.NativeEndian.AppendUint16(out, a.kind)
		out = append(out, a.value...)
	}
	binary.NativeEndian.PutUint32(out, uint32(len(out)))
	binary.NativeEndian.PutUint16(out[4:], kind)
	binary.NativeEndian.PutUint16(out[6:], flags)
	binary.NativeEndian.PutUint32(out[8:], sequence)
	return out
}

// message is an answer without its header.
type message struct {
	kind uint16
	body []byte
}

// decode splits a datagram.
func decode(datagram []byte) (list []message, err error) {
	for len(datagram) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(datagram))
		if size < unix.NLMSG_HDRLEN || size > len(datagram) {
			return nil, errdefs.Internal.Errorf("a netlink message of %d bytes in %d", size, len(datagram))
		}
		list = append(list, message{binary.NativeEndian.Uint16(datagram[4:]), datagram[unix.NLMSG_HDRLEN:size]})
		datagram = datagram[min(align(size), len(datagram)):]
	}
	return list, nil
}

// attributesOf splits what follows a message's fixed part.
func attributesOf(body []byte) map[uint16][]byte {
	found := map[uint16][]byte{}
	for len(body) >= 4 {
		size := int(binary.NativeEndian.Uint16(body))
		if size < 4 || size > len(body) {
			break
		}
		found[binary.NativeEndian.Uint16(body[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = body[4:size]
		body = body[min(align(size), len(body)):]
	}
	return found
}

// ask sends a request and collects the answers up to the acknowledgement, or
// the end of a dump.
func (n *netlink) ask(kind, flags uint16, body []byte, attributes ...attribute) ([]message, error) {
	n.sequence++
	request := encode(kind, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, n.sequence, body, attributes)
	if err := unix.Sendto(n.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("talking to netlink: %w", err)
	}
	var answers []message
	buffer := make([]byte, 1<<16)
	for {
		size, _, err := unix.Recvfrom(n.fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listening to netlink: %w", err)
		}
		list, err := decode(append([]byte(nil), buffer[:size]...))
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			switch {
			case m.kind == unix.NLMSG_DONE:
				return answers, nil
			case m.kind == unix.NLMSG_ERROR && len(m.body) >= 4:
				if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 {
					return nil, unix.Errno(-code)
				}
				return answers, nil
			}
			answers = append(answers, m)
		}
	}
}
