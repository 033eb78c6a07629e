package dbus

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// Parse reads a value in GVariant's text format, as annotations have it:
//
//	true  'text'  "text"  42  uint64 42  0x1f  1.5  ['a', "b"]  @as []  ('x', 1)  <'v'>
//
// Numbers without a type are int32, or double with a point or an exponent.
// Dictionaries are not read: no property of a unit has one.
func Parse(text string) (any, error) {
	p := &parser{rest: text}
	value, err := p.value(0)
	if err == nil && p.space() != "" {
		err = fmt.Errorf("unexpected %q", p.rest)
	}
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("%q is not a value in GVariant text format: %w", text, err)
	}
	return value, nil
}

type parser struct{ rest string }

// space skips blanks and returns what is left.
func (p *parser) space() string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest
}

// typeWords are the names that may stand before a value.
var typeWords = map[string]string{
	"boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u",
	"int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o",
}

// value reads one value of any type.
func (p *parser) value(depth int) (any, error) {
	if p.space() == "" {
		return nil, fmt.Errorf("a value is missing")
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch p.rest[0] {
	case '\'', '"':
		return p.quoted()
	case '[':
		return p.array("", depth)
	case '(':
		return p.tuple(depth)
	case '<':
		return p.variant(depth)
	case '@':
		return p.annotated(depth)
	}
	word := p.word()
	signature, isType := typeWords[word]
	switch {
	case word == "true" || word == "false":
		return word == "true", nil
	case isType:
		return p.typed(signature, depth)
	case strings.ContainsAny(word, ".eE") && !strings.HasPrefix(word, "0x"):
		return number("d", word)
	}
	return number("i", word)
}

// word takes letters, digits and what numbers have.
func (p *parser) word() string {
	end := strings.IndexFunc(p.rest, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '+' || r == '-' || r == '.')
	})
	if end < 0 {
		end = len(p.rest)
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

// annotated reads "@SIGNATURE value".
func (p *parser) annotated(depth int) (any, error) {
	end := strings.IndexAny(p.rest, " \t")
	if end < 0 {
		return nil, fmt.Errorf("expected a value after %q", p.rest)
	}
	signature, rest, err := firstType(p.rest[1:end], 0)
	if err != nil || rest != "" {
		return nil, fmt.Errorf("%q is not a type", p.rest[:end])
	}
	p.rest = p.rest[end:]
	return p.typed(signature, depth)
}

// typed reads a value whose type is said: of a basic type, or an array.
func (p *parser) typed(signature string, depth int) (any, error) {
	if p.space() == "" {
		return nil, fmt.Errorf("a value of type %q is missing", signature)
	}
	if strings.Contains("ynqiuxtd", signature) {
		return number(signature, p.word())
	}
	if signature[0] == 'a' && p.rest[0] == '[' {
		return p.array(signature[1:], depth)
	}
	value, err := p.value(depth + 1)
	if err != nil {
		return nil, err
	}
	if text, ok := value.(string); ok && signature == "o" {
		return Path(text), nil
	}
	if got := SignatureOf(value); got != signature {
		return nil, fmt.Errorf("expected type %q, got %q", signature, got)
	}
	return value, nil
}

// number reads an integer or a double of the type.
func number(signature, word string) (any, error) {
	var value any
	var err error
	var signed int64
	var unsigned uint64
	switch signature {
	case "y":
		unsigned, err = strconv.ParseUint(word, 0, 8)
		value = byte(unsigned)
	case "q":
		unsigned, err = strconv.ParseUint(word, 0, 16)
		value = uint16(unsigned)
	case "u":
		unsigned, err = strconv.ParseUint(word, 0, 32)
		value = uint32(unsigned)
	case "t":
		unsigned, err = strconv.ParseUint(word, 0, 64)
		value = unsigned
	case "n":
		signed, err = strconv.ParseInt(word, 0, 16)
		value = int16(signed)
	case "i":
		signed, err = strconv.ParseInt(word, 0, 32)
		value = int32(signed)
	case "x":
		signed, err = strconv.ParseInt(word, 0, 64)
		value = signed
	default:
		value, err = strconv.ParseFloat(word, 64)
	}
	if err != nil {
		return nil, fmt.Errorf("%q is not a number of type %q", word, signature)
	}
	return value, nil
}

// quoted reads a text with C's escapes.
func (p *parser) quoted() (any, error) {
	quote := p.rest[0]
	var out strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == quote:
			p.rest = p.rest[i+1:]
			return out.String(), nil
		case c == 0:
			return nil, fmt.Errorf("a text with a zero byte")
		case c == '\\' && i+1 < len(p.rest):
			i++
			out.WriteByte(escaped(p.rest[i]))
		default:
			out.WriteByte(c)
		}
	}
	return nil, fmt.Errorf("%c is not closed", quote)
}

func escaped(c byte) byte {
	if at := strings.IndexByte("abfnrtv", c); at >= 0 {
		return "\a\b\f\n\r\t\v"[at]
	}
	return c
}

// items reads values up to the closing bracket.
func (p *parser) items(closing byte, read func() (any, error)) ([]any, error) {
	p.rest = p.rest[1:]
	var list []any
	for {
		if p.space() == "" {
			return nil, fmt.Errorf("%c is missing", closing)
		}
		if p.rest[0] == closing {
			p.rest = p.rest[1:]
			return list, nil
		}
		if len(list) > 0 {
			if p.rest[0] != ',' {
				return nil, fmt.Errorf("expected , or %c at %q", closing, p.rest)
			}
			p.rest = p.rest[1:]
			if p.space() != "" && p.rest[0] == closing { // ('one',)
				continue
			}
		}
		item, err := read()
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
}

// array reads a list. Without a type it has that of its first element.
func (p *parser) array(element string, depth int) (any, error) {
	items, err := p.items(']', func() (any, error) {
		if element != "" {
			return p.typed(element, depth+1)
		}
		item, err := p.value(depth + 1)
		element = SignatureOf(item)
		return item, err
	})
	if err != nil {
		return nil, err
	}
	if element == "" {
		return nil, fmt.Errorf("an empty array needs a type, as in @as []")
	}
	return Array{Element: element, Items: items}, nil
}

func (p *parser) tuple(depth int) (any, error) {
	items, err := p.items(')', func() (any, error) { return p.value(depth + 1) })
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("D-Bus has no empty structure")
	}
	return Struct(items), nil
}

func (p *parser) variant(depth int) (any, error) {
	p.rest = p.rest[1:]
	value, err := p.value(depth + 1)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(p.space(), ">") {
		return nil, fmt.Errorf("> is missing at %q", p.rest)
	}
	p.rest = p.rest[1:]
	return Variant{value}, nil
}
