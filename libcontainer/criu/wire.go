package criu

import (
	"encoding/binary"
	"fmt"
)

// Protobuf's wire types (protobuf.dev, "Encoding").
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// message is a protobuf message under construction. Fields that are zero are
// left out: all the defaults that we rely on are zero.
type message []byte

func (m *message) tag(field, wire int) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire))
}

func (m *message) number(field int, n uint64) {
	if n != 0 {
		m.required(field, n)
	}
}

// required is a number that is sent even if it is zero.
func (m *message) required(field int, n uint64) {
	m.tag(field, wireVarint)
	*m = binary.AppendUvarint(*m, n)
}

func (m *message) flag(field int, set bool) {
	if set {
		m.required(field, 1)
	}
}

func (m *message) text(field int, text string) {
	if text != "" {
		m.bytes(field, []byte(text))
	}
}

func (m *message) bytes(field int, data []byte) {
	m.tag(field, wireBytes)
	*m = append(binary.AppendUvarint(*m, uint64(len(data))), data...)
}

// fields calls put for each field of a message: number holds a varint's value,
// data that of bytes.
func fields(data []byte, put func(field int, number uint64, data []byte) error) error {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return malformed("a field's tag")
		}
		data = data[n:]
		var number uint64
		var inner []byte
		switch tag & 7 {
		case wireVarint:
			if number, n = binary.Uvarint(data); n <= 0 {
				return malformed("a number")
			}
		case wireFixed8, wireFixed4:
			n = 8
			if tag&7 == wireFixed4 {
				n = 4
			}
			if len(data) < n {
				return malformed("a fixed number")
			}
		case wireBytes:
			length, size := binary.Uvarint(data)
			if size <= 0 || length > uint64(len(data)-size) {
				return malformed("bytes")
			}
			n = size + int(length)
			inner = data[size:n]
		default:
			return malformed(fmt.Sprintf("wire type %d", tag&7))
		}
		data = data[n:]
		if err := put(int(tag>>3), number, inner); err != nil {
			return err
		}
	}
	return nil
}

func malformed(what string) error { return fmt.Errorf("malformed message from criu: %s", what) }
