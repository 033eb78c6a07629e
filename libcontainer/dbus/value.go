package dbus

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Values are Go's bool, byte, int16, uint16, int32, uint32, int64, uint64,
// float64 and string, and these.
type (
	// Path is an object path.
	Path string
	// Array has elements of one type, which must be given: it may be empty.
	Array struct {
		Element string // a signature
		Items   []any
	}
	// Struct has fields of any types.
	Struct []any
	// Variant is a value with its signature beside it.
	Variant struct{ Value any }
)

// Strings makes an array of strings.
func Strings(list ...string) Array {
	array := Array{Element: "s", Items: make([]any, 0, len(list))}
	for _, text := range list {
		array.Items = append(array.Items, text)
	}
	return array
}

// Bytes makes an array of bytes.
func Bytes(list []byte) Array {
	array := Array{Element: "y", Items: make([]any, 0, len(list))}
	for _, b := range list {
		array.Items = append(array.Items, b)
	}
	return array
}

// SignatureOf returns the type code of a value, "" if it has none.
func SignatureOf(value any) string {
	switch v := value.(type) {
	case byte:
		return "y"
	case bool:
		return "b"
	case int16:
		return "n"
	case uint16:
		return "q"
	case int32:
		return "i"
	case uint32:
		return "u"
	case int64:
		return "x"
	case uint64:
		return "t"
	case float64:
		return "d"
	case string:
		return "s"
	case Path:
		return "o"
	case Variant:
		return "v"
	case Array:
		return "a" + v.Element
	case Struct:
		var fields strings.Builder
		for _, field := range v {
			fields.WriteString(SignatureOf(field))
		}
		return "(" + fields.String() + ")"
	}
	return ""
}

// alignment is that of a type, by its signature's first letter.
func alignment(signature string) int {
	if signature == "" {
		return 1
	}
	switch signature[0] {
	case 'n', 'q':
		return 2
	case 'b', 'i', 'u', 's', 'o', 'a':
		return 4
	case 'x', 't', 'd', '(', '{':
		return 8
	}
	return 1 // y, g, v
}

// encoder appends values, little endian. Alignment counts from its start,
// which is that of a message or of a body: both are multiples of 8.
type encoder struct{ data []byte }

func (e *encoder) align(n int) {
	for len(e.data)%n != 0 {
		e.data = append(e.data, 0)
	}
}

func (e *encoder) uint32(n uint32) {
	e.align(4)
	e.data = binary.LittleEndian.AppendUint32(e.data, n)
}

func (e *encoder) uint64(n uint64) {
	e.align(8)
	e.data = binary.LittleEndian.AppendUint64(e.data, n)
}

func (e *encoder) uint16(n uint16) {
	e.align(2)
	e.data = binary.LittleEndian.AppendUint16(e.data, n)
}

func (e *encoder) string(text string) {
	e.uint32(uint32(len(text)))
	e.data = append(append(e.data, text...), 0)
}

func (e *encoder) signature(text string) {
	e.data = append(append(append(e.data, byte(len(text))), text...), 0)
}

// value appends any value.
func (e *encoder) value(value any) error {
	switch v := value.(type) {
	case byte:
		e.data = append(e.data, v)
	case bool:
		n := uint32(0)
		if v {
			n = 1
		}
		e.uint32(n)
	case int16:
		e.uint16(uint16(v))
	case uint16:
		e.uint16(v)
	case int32:
		e.uint32(uint32(v))
	case uint32:
		e.uint32(v)
	case int64:
		e.uint64(uint64(v))
	case uint64:
		e.uint64(v)
	case float64:
		e.uint64(math.Float64bits(v))
	case string:
		e.string(v)
	case Path:
		e.string(string(v))
	case Variant:
		e.signature(SignatureOf(v.Value))
		return e.value(v.Value)
	case Array:
		return e.array(v)
	case Struct:
		e.align(8)
		for _, field := range v {
			if err := e.value(field); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("D-Bus has no type for %T", value)
	}
	return nil
}

// array appends the length in bytes, the padding, which it does not count, and
// the elements.
func (e *encoder) array(array Array) error {
	e.uint32(0)
	length := len(e.data) - 4
	e.align(alignment(array.Element))
	start := len(e.data)
	for _, item := range array.Items {
		if got := SignatureOf(item); got != array.Element {
			return fmt.Errorf("D-Bus array of %q: found an element of type %q", array.Element, got)
		}
		if err := e.value(item); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint32(e.data[length:], uint32(len(e.data)-start))
	return nil
}
