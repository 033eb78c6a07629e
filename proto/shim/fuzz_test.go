package shim

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// bodies are what each packet's body is decoded into.
var bodies = map[Type]func() any{
	Ok: func() any { return new(Started) }, Hello: func() any { return new(HelloReply) },
	Start: func() any { return new(ProcessRef) }, Signal: func() any { return new(SignalRequest) },
	Resize: func() any { return new(ResizeRequest) }, CloseStdin: func() any { return new(ProcessRef) },
	Attach: func() any { return new(AttachRequest) }, Release: func() any { return new(ProcessRef) },
	Forget: func() any { return new(ProcessRef) }, Exited: func() any { return new(ProcessRef) },
	LogLost: func() any { return new(LogLostNote) }, List: func() any { return new(ListRequest) },
}

// FuzzPacket: what parses is what was sent, and what its body decodes to
// survives being sent again.
func FuzzPacket(f *testing.F) {
	for typ, body := range bodies {
		p, err := MakePacket(typ, 7, body())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(AppendPacket(nil, p))
	}
	f.Add([]byte{Version, byte(Start), 0, 1, 0, 0, 0, 0, '{', '}'})
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, message []byte) {
		p, err := ParsePacket(message)
		if err != nil {
			return
		}
		if again := AppendPacket(nil, p); !bytes.Equal(again, message) {
			t.Fatalf("%x became %x", message, again)
		}
		body := bodies[p.Type]
		if body == nil {
			return
		}
		first, second := body(), body()
		if p.Decode(first) != nil {
			return
		}
		encoded, err := MakePacket(p.Type, p.ID, first)
		if err != nil { // invalid UTF-8 has grown to more than fits
			return
		}
		if err := encoded.Decode(second); err != nil {
			t.Fatalf("%s does not decode: %v", encoded.Body, err)
		}
		twice, err := MakePacket(p.Type, p.ID, second)
		if err != nil || !bytes.Equal(twice.Body, encoded.Body) {
			t.Fatalf("%s became %s, %v", encoded.Body, twice.Body, err)
		}
	})
}

// FuzzReceive: any message with any number of descriptors is received whole or
// refused, and no descriptor stays open that was not handed out.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("x"), uint8(1))
	f.Add(AppendPacket(nil, Packet{Type: Attach, Body: []byte("{}")}), uint8(3))
	f.Fuzz(func(t *testing.T, message []byte, descriptors uint8) {
		if len(message) == 0 || len(message) > MaxBody {
			return
		}
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ends[1])
		fds := make([]int, descriptors%8)
		for i := range fds {
			fds[i] = ends[0]
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		err = unix.Sendmsg(ends[0], message, rights, nil, 0)
		unix.Close(ends[0])
		if err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 2*MaxBody)
		n, got, err := ReceiveMessage(ends[1], buffer)
		for _, fd := range got {
			unix.Close(fd)
		}
		if err != nil || !bytes.Equal(buffer[:n], message) {
			t.Fatalf("received %d of %d bytes, %v", n, len(message), err)
		}
		// With our end and all copies closed, the other side sees the end.
		if n, err := unix.Read(ends[1], buffer); n != 0 || err != nil {
			t.Fatalf("a descriptor is still open: %d, %v", n, err)
		}
	})
}
