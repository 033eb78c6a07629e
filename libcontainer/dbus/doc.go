// Package dbus is a small D-Bus client: enough to call methods of systemd and
// to wait for one of its signals, over a unix socket, in a process that lives
// for milliseconds.
//
// # What it speaks
//
// The D-Bus specification 0.43, little endian out, both orders in:
//
//	connect     unix:path=, unix:abstract= (address.go)
//	authorise   SASL EXTERNAL without an identity: the other side takes the
//	            socket's credentials, which also holds in user namespaces
//	call        method call → method return or error (conn.go, message.go)
//	signal      those that arrive are kept until asked for
//
// A connection to a bus says Hello first; one to systemd's private socket is
// between two peers, has no names and no match rules.
//
// # Invariants
//
//   - Every length read is checked against what is left of the message, and a
//     message against maxMessage: the other side may be another user's.
//   - A Conn belongs to one goroutine. Every wait ends with its context.
//
// # Absent on purpose
//
// Exporting objects, descriptors in messages, variants of containers in
// replies, godbus: initialising that (with reflect, net, encoding/xml behind
// it) costs every start of the runtime, whether systemd is used or not.
package dbus
