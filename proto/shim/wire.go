package shim

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/engined/engined/proto/errdefs"
)

// Packet is one message on the shim's socket.
type Packet struct {
	Type Type
	ID   uint32 // request id; 0 in what the shim says unasked
	Body []byte // JSON, or nothing
	FDs  []int  // owned by whoever holds the packet
}

// MakePacket encodes body, if it is not nil, into a packet.
func MakePacket(typ Type, id uint32, body any) (Packet, error) {
	p := Packet{Type: typ, ID: id}
	if body == nil {
		return p, nil
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return p, fmt.Errorf("encoding the body of a %s packet: %w", typ, err)
	}
	if len(encoded) > MaxBody {
		return p, errdefs.InvalidArgument.Errorf("body of a %s packet has %d bytes, at most %d fit", typ, len(encoded), MaxBody)
	}
	p.Body = encoded
	return p, nil
}

// AppendPacket appends p's header and body to buf.
func AppendPacket(buf []byte, p Packet) []byte {
	buf = append(buf, Version, byte(p.Type), 0, 0)
	buf = binary.LittleEndian.AppendUint32(buf, p.ID)
	return append(buf, p.Body...)
}

// ParsePacket decodes one message; the packet's body is a part of buf. With an
// error the packet has type and id as far as buf holds them, for the answer.
func ParsePacket(buf []byte) (Packet, error) {
	if len(buf) < HeaderSize {
		return Packet{}, errdefs.InvalidArgument.Errorf("packet has %d bytes, its header alone has %d", len(buf), HeaderSize)
	}
	p := Packet{Type: Type(buf[1]), ID: binary.LittleEndian.Uint32(buf[4:])}
	switch {
	case buf[0] != Version:
		return p, errdefs.FailedPrecondition.Errorf("packet has version %d, this side speaks %d", buf[0], Version)
	case buf[2] != 0 || buf[3] != 0:
		return p, errdefs.InvalidArgument.Errorf("bytes 2 and 3 of the packet's header are %d and %d, expected zero", buf[2], buf[3])
	case len(buf) > HeaderSize+MaxBody:
		return p, errdefs.InvalidArgument.Errorf("packet's body is longer than %d bytes", MaxBody)
	}
	p.Body = buf[HeaderSize:]
	return p, nil
}

// Decode decodes p's body into v.
func (p Packet) Decode(v any) error {
	if err := json.Unmarshal(p.Body, v); err != nil {
		return errdefs.InvalidArgument.Errorf("body of a %s packet: %w", p.Type, err)
	}
	return nil
}

var typeNames = [...]string{
	Ok: "Ok", Error: "Error", Hello: "Hello", Start: "Start", Resume: "Resume", Signal: "Signal",
	Resize: "Resize", CloseStdin: "CloseStdin", Attach: "Attach", Release: "Release",
	Forget: "Forget", Delete: "Delete", Exited: "Exited", LogLost: "LogLost", Adopt: "Adopt", List: "List",
}

// String returns the type's name as doc.go has it.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}
