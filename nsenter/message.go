package nsenter

/*
#include "plan.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
)

// MessageType says what a packet on the stage's socket is.
type MessageType uint32

// Who sends what when:
//
//	child → parent   MessageBorn      first, if the marker names namespaces: they are made
//	parent → child   MessagePlan      once, when the memory file holds the plan
//	child → parent   MessageStep      at each Sync; Value is the step
//	child → parent   MessagePid       at Clone; Value is the pid that goes on
//	child → parent   MessageListener  at Seccomp with Listener; Value is its descriptor
//	parent → child   MessageContinue  answers MessageStep, MessagePid and MessageListener; unasked, for
//	                                  Await, which comes before any of these
//	child → parent   MessageReady     at Ready; nothing follows
//	child → parent   MessageError     at the first failure; nothing follows but, of a hook that failed,
//	                                  a packet with its output, if there is any
//
// To who started the container, over a fifo, after Ready: MessageReady or MessageError, as above.
//
// A close without Ready or Error is execve, or death.
const (
	MessagePlan     MessageType = C.MESSAGE_PLAN
	MessageContinue MessageType = C.MESSAGE_CONTINUE
	MessageStep     MessageType = C.MESSAGE_STEP
	MessagePid      MessageType = C.MESSAGE_PID
	MessageListener MessageType = C.MESSAGE_LISTENER
	MessageReady    MessageType = C.MESSAGE_READY
	MessageError    MessageType = C.MESSAGE_ERROR
	MessageBorn     MessageType = C.MESSAGE_BORN
)

// Where says where in an operation it failed.
type Where uint32

// Places of failure.
const (
	WhereOp        Where = C.WHERE_OP
	WhereResolve   Where = C.WHERE_RESOLVE
	WhereStat      Where = C.WHERE_STAT
	WhereAccess    Where = C.WHERE_ACCESS
	WhereDirectory Where = C.WHERE_DIRECTORY
	WherePath      Where = C.WHERE_PATH
	WhereUnsafe    Where = C.WHERE_UNSAFE
	WhereOutside   Where = C.WHERE_OUTSIDE
	WherePlan      Where = C.WHERE_PLAN
	WhereBirth     Where = C.WHERE_BIRTH
	WhereHook      Where = C.WHERE_HOOK
	WhereTimeout   Where = C.WHERE_HOOK_TIMEOUT
)

// PacketSize is that of a Message, encoded.
const PacketSize = C.sizeof_struct_plan_message_packet

// Message is one packet.
type Message struct {
	Type  MessageType
	Op    int // index in the plan
	Errno int
	Where Where
	Value int64
}

// OfHook reports whether it is the failure of a hook, which its output follows.
func (m Message) OfHook() bool { return m.Where == WhereHook || m.Where == WhereTimeout }

// Encode returns the packet.
func (m Message) Encode() []byte {
	out := make([]byte, PacketSize)
	binary.NativeEndian.PutUint32(out, uint32(m.Type))
	binary.NativeEndian.PutUint32(out[4:], uint32(m.Op))
	binary.NativeEndian.PutUint32(out[8:], uint32(m.Errno))
	binary.NativeEndian.PutUint32(out[12:], uint32(m.Where))
	binary.NativeEndian.PutUint64(out[16:], uint64(m.Value))
	return out
}

// DecodeMessage reads a packet.
func DecodeMessage(packet []byte) (Message, error) {
	if len(packet) != PacketSize {
		return Message{}, fmt.Errorf("a message of %d bytes: expected %d", len(packet), PacketSize)
	}
	return Message{
		Type:  MessageType(binary.NativeEndian.Uint32(packet)),
		Op:    int(binary.NativeEndian.Uint32(packet[4:])),
		Errno: int(int32(binary.NativeEndian.Uint32(packet[8:]))),
		Where: Where(binary.NativeEndian.Uint32(packet[12:])),
		Value: int64(binary.NativeEndian.Uint64(packet[16:])),
	}, nil
}
