package dbus

import (
	"encoding/binary"
	"math"
	"strings"
)

// maxDepth bounds containers in containers.
const maxDepth = 16

// signatureValue is a value of type g.
type signatureValue string

// decoder reads values; at counts from an 8-aligned start.
type decoder struct {
	data  []byte
	at    int
	order binary.ByteOrder
}

// take returns the next n bytes.
func (d *decoder) take(n int) ([]byte, error) {
	if n < 0 || n > len(d.data)-d.at {
		return nil, malformed("%d bytes wanted at %d of %d", n, d.at, len(d.data))
	}
	taken := d.data[d.at : d.at+n]
	d.at += n
	return taken, nil
}

func (d *decoder) align(n int) error {
	_, err := d.take((n - d.at%n) % n)
	return err
}

func (d *decoder) byte() (byte, error) {
	b, err := d.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// number reads an integer of 2, 4 or 8 bytes.
func (d *decoder) number(size int) (uint64, error) {
	if err := d.align(size); err != nil {
		return 0, err
	}
	b, err := d.take(size)
	switch {
	case err != nil:
		return 0, err
	case size == 2:
		return uint64(d.order.Uint16(b)), nil
	case size == 4:
		return uint64(d.order.Uint32(b)), nil
	}
	return d.order.Uint64(b), nil
}

// text reads length bytes and the zero after them.
func (d *decoder) text(length int) (string, error) {
	b, err := d.take(length)
	if err != nil {
		return "", err
	}
	end, err := d.byte()
	if err != nil || end != 0 {
		return "", malformed("a text that does not end in 0")
	}
	return string(b), nil
}

func (d *decoder) string() (string, error) {
	length, err := d.number(4)
	if err != nil {
		return "", err
	}
	if length > maxMessage {
		return "", malformed("a text of %d bytes", length)
	}
	return d.text(int(length))
}

func (d *decoder) signature() (string, error) {
	length, err := d.byte()
	if err != nil {
		return "", err
	}
	return d.text(int(length))
}

func (d *decoder) variant(depth int) (any, error) {
	signature, err := d.signature()
	if err != nil {
		return nil, err
	}
	one, rest, err := firstType(signature, depth)
	if err != nil {
		return nil, err
	}
	if rest != "" {
		return nil, malformed("a variant of type %q", signature)
	}
	return d.value(one, depth+1)
}

// values reads a sequence of types.
func (d *decoder) values(signature string) ([]any, error) {
	var list []any
	for signature != "" {
		one, rest, err := firstType(signature, 0)
		if err != nil {
			return nil, err
		}
		value, err := d.value(one, 0)
		if err != nil {
			return nil, err
		}
		list, signature = append(list, value), rest
	}
	return list, nil
}

// value reads a value of one complete type.
func (d *decoder) value(signature string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, malformed("containers nested deeper than %d", maxDepth)
	}
	switch signature[0] {
	case 'y':
		return d.byte()
	case 'b':
		n, err := d.number(4)
		return n != 0, err
	case 'n', 'q':
		n, err := d.number(2)
		if signature == "n" {
			return int16(n), err
		}
		return uint16(n), err
	case 'i', 'u', 'h':
		n, err := d.number(4)
		if signature == "i" {
			return int32(n), err
		}
		return uint32(n), err
	case 'x', 't', 'd':
		n, err := d.number(8)
		switch signature {
		case "x":
			return int64(n), err
		case "d":
			return math.Float64frombits(n), err
		}
		return n, err
	case 's':
		return d.string()
	case 'o':
		text, err := d.string()
		return Path(text), err
	case 'g':
		text, err := d.signature()
		return signatureValue(text), err
	case 'v':
		value, err := d.variant(depth)
		return Variant{value}, err
	case 'a':
		return d.array(signature[1:], depth)
	}
	return d.structure(signature[1:len(signature)-1], depth)
}

func (d *decoder) array(element string, depth int) (any, error) {
	length, err := d.number(4)
	if err != nil {
		return nil, err
	}
	if err := d.align(alignment(element)); err != nil {
		return nil, err
	}
	if length > uint64(len(d.data)-d.at) {
		return nil, malformed("an array of %d bytes, %d are left", length, len(d.data)-d.at)
	}
	array := Array{Element: element}
	for end := d.at + int(length); d.at < end; {
		before := d.at
		item, err := d.value(element, depth+1)
		if err != nil {
			return nil, err
		}
		if d.at > end || d.at == before { // an empty structure would never end
			return nil, malformed("an array element of type %q", element)
		}
		array.Items = append(array.Items, item)
	}
	return array, nil
}

// structure reads a structure's or a dictionary entry's fields.
func (d *decoder) structure(fields string, depth int) (any, error) {
	if err := d.align(8); err != nil {
		return nil, err
	}
	list := Struct{}
	for fields != "" {
		one, rest, err := firstType(fields, depth)
		if err != nil {
			return nil, err
		}
		value, err := d.value(one, depth+1)
		if err != nil {
			return nil, err
		}
		list, fields = append(list, value), rest
	}
	return list, nil
}

// firstType splits the first complete type off a signature.
func firstType(signature string, depth int) (one, rest string, err error) {
	if signature == "" || depth > maxDepth {
		return "", "", malformed("type %q", signature)
	}
	switch c := signature[0]; {
	case strings.IndexByte("ybnqiuhxtdsogv", c) >= 0:
		return signature[:1], signature[1:], nil
	case c == 'a':
		element, rest, err := firstType(signature[1:], depth+1)
		return signature[:1+len(element)], rest, err
	case c == '(':
		return closed(signature, ')', depth)
	case c == '{':
		return closed(signature, '}', depth)
	}
	return "", "", malformed("type %q", signature)
}

// closed splits a container off that ends with a bracket.
func closed(signature string, bracket byte, depth int) (one, rest string, err error) {
	rest = signature[1:]
	for rest != "" && rest[0] != bracket {
		if _, rest, err = firstType(rest, depth+1); err != nil {
			return "", "", err
		}
	}
	if rest == "" || len(rest) == len(signature)-1 {
		return "", "", malformed("type %q", signature)
	}
	rest = rest[1:]
	return signature[:len(signature)-len(rest)], rest, nil
}
