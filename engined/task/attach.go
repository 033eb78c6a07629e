package task

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/engined/engined/proto/shim"
)

// maxReadAhead is how much that was read ahead fits into a packet: base64 makes
// four bytes of three, and the packet's other fields are small.
const maxReadAhead = shim.MaxBody / 2

// Attach hands conn to the shim that listens at socket. In every case conn is
// Attach's: it is closed here, and after success lives on in the shim.
func (c *Client) Attach(ctx context.Context, socket string, req shim.AttachRequest, conn net.Conn) error {
	descriptor, ok := conn.(syscall.Conn)
	if !ok || len(req.Read) > maxReadAhead {
		return c.relay(ctx, socket, req, conn)
	}
	defer conn.Close()
	raw, err := descriptor.SyscallConn()
	if err != nil {
		return fmt.Errorf("attaching: the client's connection: %w", err)
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = send(ctx, socket, req, fd) })
	if err != nil {
		return fmt.Errorf("attaching: the client's connection: %w", err)
	}
	return sent
}

// send passes a descriptor to the shim, which takes a copy.
func send(ctx context.Context, socket string, req shim.AttachRequest, fd uintptr) error {
	client, err := shim.Connect(ctx, socket)
	if err != nil {
		return fmt.Errorf("attaching to %s: %w", req.Process, err)
	}
	defer client.Close()
	if err := client.Attach(ctx, req, fd); err != nil {
		return fmt.Errorf("attaching to %s: %w", req.Process, err)
	}
	return nil
}
