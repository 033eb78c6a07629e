package plainjson

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Error says which field cannot be what the document says.
type Error struct {
	Field string // as in linux.resources.memory.limit, mounts[2].options
	Text  string // what was expected and is there
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Text
	}
	return e.Field + ": " + e.Text
}

// Unmarshal decodes a document into a struct or a slice, given by a pointer. The errors
// are encoding/json's if data is not JSON, else an [*Error]. Data must not be
// changed any more: the strings in the struct are parts of it.
func Unmarshal(data []byte, into any) error {
	if !valid(data) {
		var nothing any
		return json.Unmarshal(data, &nothing) // knows what is wrong, and where
	}
	d := decoder{data: data, fields: map[reflect.Type][]field{}}
	return d.value(reflect.ValueOf(into).Elem())
}

// decoder is somewhere in data, which is JSON: what must follow by JSON's
// grammar is not checked again.
type decoder struct {
	data   []byte
	at     int
	fields map[reflect.Type][]field // of structs met so far
}

// peek skips space and returns what follows.
func (d *decoder) peek() byte {
	for {
		switch c := d.data[d.at]; c {
		case ' ', '\t', '\r', '\n':
			d.at++
		default:
			return c
		}
	}
}

// value decodes the value that follows.
func (d *decoder) value(v reflect.Value) error {
	if d.peek() == 'n' {
		return d.null(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem())
	case reflect.Struct:
		if own, ok := v.Addr().Interface().(json.Unmarshaler); ok { // a time
			return own.UnmarshalJSON(d.skip())
		}
		return d.structure(v)
	case reflect.Map:
		return d.dictionary(v)
	case reflect.Slice:
		return d.array(v)
	case reflect.String:
		return d.text(v)
	case reflect.Bool:
		return d.boolean(v)
	case reflect.Interface:
		return json.Unmarshal(d.skip(), v.Addr().Interface())
	}
	return d.number(v)
}

// null leaves what cannot be nil as it is.
func (d *decoder) null(v reflect.Value) error {
	d.skip()
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
		v.SetZero()
	}
	return nil
}

// skip returns the value that follows and goes behind it.
func (d *decoder) skip() []byte {
	d.peek()
	found := value(d.data[d.at:])
	if found == nil { // a number or word that the document ends with
		found = d.data[d.at:]
	}
	d.at += len(found)
	return found
}

// expected is the error that something else is there.
func (d *decoder) expected(what string) error {
	found := "a number"
	switch d.peek() {
	case '{':
		found = "an object"
	case '[':
		found = "an array"
	case '"':
		found = "a string"
	case 't', 'f':
		found = "a boolean"
	}
	return &Error{Text: "expected " + what + ", got " + found}
}

// in puts the path of an error's field together, on its way out.
func in(name string, err error) error {
	if wrong, ok := err.(*Error); ok { //nolint:errorlint // made here, never wrapped
		if wrong.Field != "" && wrong.Field[0] != '[' {
			name += "."
		}
		wrong.Field = name + wrong.Field
	}
	return err
}

// members calls each with every key of the object that follows; each decodes or
// skips the value.
func (d *decoder) members(each func(key string) error) error {
	if d.peek() != '{' {
		return d.expected("an object")
	}
	d.at++
	for d.peek() != '}' {
		if d.data[d.at] == ',' {
			d.at++
			d.peek()
		}
		key := d.string()
		d.peek()
		d.at++ // the colon
		if err := each(key); err != nil {
			return in(key, err)
		}
	}
	d.at++
	return nil
}

const twice = "expected once, given twice"

func (d *decoder) structure(v reflect.Value) error {
	known := d.fieldsOf(v.Type())
	var few [64]bool
	seen := few[:]
	if len(known) > len(few) {
		seen = make([]bool, len(known))
	}
	return d.members(func(key string) error {
		i := find(known, key)
		if i < 0 {
			d.skip()
			return nil
		}
		if seen[i] {
			return &Error{Text: twice}
		}
		seen[i] = true
		return d.value(known[i].of(v))
	})
}

// dictionary decodes into a map with strings for keys.
func (d *decoder) dictionary(v reflect.Value) error {
	if d.peek() != '{' {
		return d.expected("an object")
	}
	made := reflect.MakeMap(v.Type())
	v.Set(made)
	return d.members(func(key string) error {
		name := reflect.ValueOf(key)
		if made.MapIndex(name).IsValid() {
			return &Error{Text: twice}
		}
		element := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(element); err != nil {
			return err
		}
		made.SetMapIndex(name, element)
		return nil
	})
}

func (d *decoder) array(v reflect.Value) error {
	if d.peek() != '[' {
		return d.expected("an array")
	}
	d.at++
	room := 4
	if v.Type().Elem().Kind() == reflect.String {
		room = d.count()
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, room))
	for i := 0; d.peek() != ']'; i++ {
		if d.data[d.at] == ',' {
			d.at++
		}
		if i == v.Cap() {
			v.Grow(max(i, 1))
		}
		v.SetLen(i + 1)
		if err := d.value(v.Index(i)); err != nil {
			return in("["+strconv.Itoa(i)+"]", err)
		}
	}
	d.at++
	return nil
}

// count is how many strings there are in the array that follows, of which there may be
// hundreds.
func (d *decoder) count() int {
	n := 0
	for at := d.at; ; at++ {
		switch d.data[at] {
		case ' ', '\t', '\r', '\n', ',':
		case '"':
			n++
			at += 1 + stringEnd(d.data[at+1:])
		default: // the end, or what is not to be decoded into a string
			return n
		}
	}
}

func (d *decoder) text(v reflect.Value) error {
	if d.peek() != '"' {
		return d.expected("a string")
	}
	v.SetString(d.string())
	return nil
}

// string decodes the string that follows.
func (d *decoder) string() string {
	start := d.at
	end := start + 1 + stringEnd(d.data[start+1:])
	d.at = end + 1
	inner := d.data[start+1 : end]
	if plain(inner) {
		return unsafe.String(unsafe.SliceData(inner), len(inner))
	}
	var text string
	if err := json.Unmarshal(d.data[start:end+1], &text); err != nil {
		panic(fmt.Sprintf("a string that is JSON is none: %v", err)) // valid accepted it
	}
	return text
}

// plain strings are their own value: no escapes, and nothing that JSON would
// replace.
func plain(inner []byte) bool {
	for _, c := range inner {
		if c == '\\' || c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func (d *decoder) boolean(v reflect.Value) error {
	switch d.peek() {
	case 't', 'f':
		v.SetBool(d.skip()[0] == 't')
		return nil
	}
	return d.expected("a boolean")
}

func (d *decoder) number(v reflect.Value) error {
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return d.expected("a number")
	}
	literal := string(d.skip())
	var err error
	switch {
	case v.CanInt():
		var n int64
		n, err = strconv.ParseInt(literal, 10, v.Type().Bits())
		v.SetInt(n)
	case v.CanUint():
		var n uint64
		n, err = strconv.ParseUint(literal, 10, v.Type().Bits())
		v.SetUint(n)
	default:
		return &Error{Text: "cannot be decoded into " + v.Type().String()}
	}
	if err != nil {
		return &Error{Text: fmt.Sprintf("expected a whole number that fits %s, got %s", v.Kind(), literal)}
	}
	return nil
}

// field of a struct, or of one that it embeds.
type field struct {
	name  string
	index [2]int16 // the second only in one that is embedded, else -1
}

func (f *field) of(v reflect.Value) reflect.Value {
	if v = v.Field(int(f.index[0])); f.index[1] >= 0 {
		v = v.Field(int(f.index[1]))
	}
	return v
}

// fieldsOf returns the fields that a document can name.
func (d *decoder) fieldsOf(t reflect.Type) []field {
	if known, ok := d.fields[t]; ok {
		return known
	}
	known := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for _, inner := range d.fieldsOf(f.Type) {
				if inner.index[1] >= 0 {
					panic("embedded twice: " + t.String())
				}
				known = append(known, field{inner.name, [2]int16{int16(i), inner.index[0]}})
			}
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		known = append(known, field{name, [2]int16{int16(i), -1}})
	}
	d.fields[t] = known
	return known
}

// find prefers a key in its own case, as encoding/json does.
func find(known []field, key string) int {
	folded := -1
	for i, f := range known {
		if f.name == key {
			return i
		}
		if folded < 0 && strings.EqualFold(f.name, key) {
			folded = i
		}
	}
	return folded
}
