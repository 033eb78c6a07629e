package dbus

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A message is
//
//	1 byte   order: 'l' or 'B'
//	1        kind
//	1        flags
//	1        version, 1
//	4        length of the body
//	4        serial
//	4 + n    fields: an array of (byte, variant)
//	         padding to 8
//	body
const (
	prefixSize = 16      // up to and including the length of the fields
	maxMessage = 1 << 20 // systemd's are a few hundred bytes; the protocol allows 128 MiB
	maxSerial  = math.MaxUint32
)

// Kind is a message's type.
type Kind byte

// The kinds.
const (
	MethodCall Kind = 1 + iota
	MethodReturn
	Error
	Signal
)

// The fields that are read or written.
const (
	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldErrorName   = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// Message is what goes over the wire, its body decoded.
type Message struct {
	Kind        Kind
	Serial      uint32
	ReplySerial uint32
	Path        Path
	Interface   string
	Member      string
	ErrorName   string
	Destination string
	Body        []any
}

// encode makes a message's bytes.
func (m *Message) encode() ([]byte, error) {
	var body encoder
	signature := ""
	for _, value := range m.Body {
		if err := body.value(value); err != nil {
			return nil, err
		}
		signature += SignatureOf(value)
	}
	e := encoder{data: []byte{'l', byte(m.Kind), 0, 1}}
	e.uint32(uint32(len(body.data)))
	e.uint32(m.Serial)
	e.uint32(0)
	e.field(fieldPath, string(m.Path), Variant{m.Path})
	e.field(fieldInterface, m.Interface, Variant{m.Interface})
	e.field(fieldMember, m.Member, Variant{m.Member})
	e.field(fieldErrorName, m.ErrorName, Variant{m.ErrorName})
	e.field(fieldDestination, m.Destination, Variant{m.Destination})
	if m.ReplySerial != 0 {
		e.field(fieldReplySerial, "set", Variant{m.ReplySerial})
	}
	if signature != "" {
		e.align(8)
		e.data = append(e.data, fieldSignature, 1, 'g', 0)
		e.signature(signature)
	}
	binary.LittleEndian.PutUint32(e.data[12:], uint32(len(e.data)-prefixSize))
	e.align(8)
	return append(e.data, body.data...), nil
}

// field appends a header field unless it is empty.
func (e *encoder) field(code byte, text string, value Variant) {
	if text == "" {
		return
	}
	e.align(8)
	e.data = append(e.data, code)
	e.value(value) //nolint:errcheck // strings and numbers cannot fail
}

// messageSize returns how long the message is whose first bytes are given, 0
// if they are too few to tell.
func messageSize(data []byte) (int, error) {
	if len(data) < prefixSize {
		return 0, nil
	}
	order, err := byteOrder(data[0])
	if err != nil {
		return 0, err
	}
	body, fields := uint64(order.Uint32(data[4:])), uint64(order.Uint32(data[12:]))
	size := prefixSize + (fields+7)/8*8 + body
	if size > maxMessage {
		return 0, malformed("a message of %d bytes", size)
	}
	return int(size), nil
}

func byteOrder(mark byte) (binary.ByteOrder, error) {
	switch mark {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	}
	return nil, malformed("byte order %q", mark)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("malformed D-Bus message: %w", fmt.Errorf(format, args...))
}

// decodeMessage reads one whole message.
func decodeMessage(data []byte) (*Message, error) {
	size, err := messageSize(data)
	if err != nil {
		return nil, err
	}
	if size == 0 || len(data) != size {
		return nil, malformed("%d bytes, expected %d", len(data), size)
	}
	order, err := byteOrder(data[0])
	if err != nil {
		return nil, err
	}
	if data[3] != 1 {
		return nil, malformed("version %d", data[3])
	}
	m := &Message{Kind: Kind(data[1]), Serial: order.Uint32(data[8:])}
	end := prefixSize + int(order.Uint32(data[12:]))
	d := &decoder{data: data[:end], at: prefixSize, order: order}
	signature := ""
	for d.at < end {
		if err := m.decodeField(d, &signature); err != nil {
			return nil, err
		}
	}
	d = &decoder{data: data[(end+7)/8*8:], order: order}
	m.Body, err = d.values(signature)
	if err == nil && d.at != len(d.data) {
		err = malformed("%d bytes after the body", len(d.data)-d.at)
	}
	return m, err
}

// decodeField reads one header field; those we have no use for are skipped.
func (m *Message) decodeField(d *decoder, signature *string) error {
	if err := d.align(8); err != nil {
		return err
	}
	code, err := d.byte()
	if err != nil {
		return err
	}
	value, err := d.variant(0)
	if err != nil {
		return err
	}
	text, isText := value.(string)
	switch path, isPath := value.(Path); {
	case code == fieldPath && isPath:
		m.Path = path
	case code == fieldInterface && isText:
		m.Interface = text
	case code == fieldMember && isText:
		m.Member = text
	case code == fieldErrorName && isText:
		m.ErrorName = text
	case code == fieldReplySerial:
		m.ReplySerial, _ = value.(uint32)
	case code == fieldSignature:
		s, _ := value.(signatureValue)
		*signature = string(s)
	}
	return nil
}
