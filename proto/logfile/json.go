package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sort"
	"time"
	"unicode/utf8"
)

// jsonFormat is json-file.
type jsonFormat struct {
	attrs []byte // `,"attrs":{...}` or nothing
	clock clock
	tails [Stderr + 1][]byte // what follows an entry's text in this batch

	text      []byte // parse's unescaped line
	seconds   secondCache
	attrsJSON []byte // the last entry's, as most have the same
	attrsMap  map[string]string
}

func newJSONFormat(attrs map[string]string) *jsonFormat {
	f := &jsonFormat{}
	if len(attrs) == 0 {
		return f
	}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	sort.Strings(names)
	f.attrs = append(f.attrs, `,"attrs":{`...)
	for i, name := range names {
		if i > 0 {
			f.attrs = append(f.attrs, ',')
		}
		f.attrs = appendQuoted(f.attrs, []byte(name))
		f.attrs = append(f.attrs, ':')
		f.attrs = appendQuoted(f.attrs, []byte(attrs[name]))
	}
	f.attrs = append(f.attrs, '}')
	return f
}

func appendQuoted(dst, text []byte) []byte {
	return append(appendEscaped(append(dst, '"'), text), '"')
}

func (f *jsonFormat) begin(now time.Time) {
	stamp := f.clock.stamp(now)
	for s := Stdout; s <= Stderr; s++ {
		tail := append(f.tails[s][:0], `,"stream":"`...)
		tail = append(tail, s.String()...)
		tail = append(tail, '"')
		tail = append(tail, f.attrs...)
		tail = append(tail, `,"time":"`...)
		tail = append(tail, stamp...)
		f.tails[s] = append(tail, "\"}\n"...)
	}
}

func (f *jsonFormat) append(dst []byte, s Stream, line []byte, newline bool) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, line)
	if newline {
		dst = append(dst, `\n`...)
	}
	dst = append(dst, '"')
	return append(dst, f.tails[s]...)
}

// plain says which bytes stand for themselves in Docker's JSON strings.
var plain = func() (table [256]bool) {
	for b := 0x20; b < utf8.RuneSelf; b++ {
		table[b] = true
	}
	for _, b := range `"\<>&` {
		table[b] = false
	}
	return table
}()

const hexDigits = "0123456789abcdef"

// appendEscaped appends text as the inside of a JSON string, escaped as
// Docker's json-file driver does it.
func appendEscaped(dst, text []byte) []byte {
	start := 0
	for i := 0; i < len(text); {
		b := text[i]
		if plain[b] {
			i++
			continue
		}
		if b < utf8.RuneSelf {
			dst = append(dst, text[start:i]...)
			dst = appendEscape(dst, b)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, text[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + 1
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			dst = append(dst, text[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	return append(dst, text[start:]...)
}

func appendEscape(dst []byte, b byte) []byte {
	switch b {
	case '"', '\\':
		return append(dst, '\\', b)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
}

func (f *jsonFormat) boundary(buf []byte) (length, whole, all int) {
	length = bytes.LastIndexByte(buf, '\n') + 1
	whole = bytes.Count(buf[:length], newlineByte)
	all = whole
	if length < len(buf) {
		all++
	}
	return length, whole, all
}

var newlineByte = []byte{'\n'}

func (f *jsonFormat) parse(buf []byte, e *Entry) (size int, good bool) {
	end := bytes.IndexByte(buf, '\n')
	if end < 0 {
		return 0, false
	}
	return end + 1, f.parseFast(buf[:end], e) || f.parseAny(buf[:end], e)
}

// parseFast decodes what this package writes: the members in their order.
func (f *jsonFormat) parseFast(line []byte, e *Entry) bool {
	rest, ok := bytes.CutPrefix(line, []byte(`{"log":"`))
	if !ok {
		return false
	}
	f.text, rest, ok = unescape(f.text[:0], rest)
	if !ok {
		return false
	}
	if rest, ok = f.parseStream(rest, e); !ok {
		return false
	}
	e.Attrs = nil
	if after, has := bytes.CutPrefix(rest, []byte(`,"attrs":`)); has {
		if rest, ok = f.parseAttrs(after, e); !ok {
			return false
		}
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"time":"`))
	if !ok {
		return false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok {
		return false
	}
	e.Line = f.text
	e.Time, ok = f.seconds.parse(stamp)
	return ok
}

func (f *jsonFormat) parseStream(rest []byte, e *Entry) ([]byte, bool) {
	if after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stdout"`)); ok {
		e.Stream = Stdout
		return after, true
	}
	after, ok := bytes.CutPrefix(rest, []byte(`,"stream":"stderr"`))
	e.Stream = Stderr
	return after, ok
}

// parseAttrs decodes the object at the start of rest, once for equal ones.
func (f *jsonFormat) parseAttrs(rest []byte, e *Entry) ([]byte, bool) {
	end := bytes.LastIndex(rest, []byte(`},"time":"`))
	if end < 0 {
		return nil, false
	}
	object, rest := rest[:end+1], rest[end+1:]
	if !bytes.Equal(object, f.attrsJSON) {
		var attrs map[string]string
		if json.Unmarshal(object, &attrs) != nil {
			return nil, false
		}
		f.attrsJSON, f.attrsMap = append(f.attrsJSON[:0], object...), attrs
	}
	e.Attrs = f.attrsMap
	return rest, true
}

// parseAny decodes a line that another program wrote.
func (f *jsonFormat) parseAny(line []byte, e *Entry) bool {
	var any struct {
		Log    string            `json:"log"`
		Stream string            `json:"stream"`
		Attrs  map[string]string `json:"attrs"`
		Time   time.Time         `json:"time"`
	}
	if json.Unmarshal(line, &any) != nil || any.Time.IsZero() {
		return false
	}
	*e = Entry{Stream: Stdout, Time: any.Time, Line: []byte(any.Log), Attrs: any.Attrs}
	if any.Stream == Stderr.String() {
		e.Stream = Stderr
	}
	return true
}

// unescape appends the JSON string at the start of s, whose opening quote is
// already gone, to dst and returns what follows its closing quote.
func unescape(dst, s []byte) (text, rest []byte, ok bool) {
	quote := bytes.IndexByte(s, '"')
	for {
		if quote < 0 {
			return dst, nil, false
		}
		i := bytes.IndexByte(s[:quote], '\\')
		if i < 0 {
			return append(dst, s[:quote]...), s[quote+1:], true
		}
		dst = append(dst, s[:i]...)
		size := 0
		if dst, size = unescapeOne(dst, s[i:]); size == 0 {
			return dst, nil, false
		}
		s = s[i+size:]
		if quote -= i + size; quote < 0 { // the quote was part of the escape
			quote = bytes.IndexByte(s, '"')
		}
	}
}

// unescapeOne appends what the escape at the start of s stands for. Surrogate
// pairs, which the writer never makes, are left to encoding/json: size 0.
func unescapeOne(dst, s []byte) (_ []byte, size int) {
	if len(s) < 2 {
		return dst, 0
	}
	switch s[1] {
	case 'n':
		return append(dst, '\n'), 2
	case 'r':
		return append(dst, '\r'), 2
	case 't':
		return append(dst, '\t'), 2
	case '"', '\\', '/':
		return append(dst, s[1]), 2
	case 'u':
		r, ok := hex4(s[2:])
		if !ok || r >= 0xd800 && r < 0xe000 {
			return dst, 0
		}
		return utf8.AppendRune(dst, r), 6
	}
	return dst, 0
}

func hex4(s []byte) (r rune, ok bool) {
	if len(s) < 4 {
		return 0, false
	}
	for _, c := range s[:4] {
		d := bytes.IndexByte([]byte(hexDigits), c|0x20)
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// tail finds the last n lines. A last line without its end is no entry yet.
func (f *jsonFormat) tail(file readerAt, size int64, n int) (offset int64, found int, err error) {
	buf := make([]byte, 64<<10)
	last := int64(-1) // where the entry being looked at ends
	for at := size; at > 0; {
		chunk := buf[:min(at, int64(len(buf)))]
		at -= int64(len(chunk))
		if _, err := file.ReadAt(chunk, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := len(chunk); i > 0; {
			i = bytes.LastIndexByte(chunk[:i], '\n')
			if i < 0 {
				break
			}
			end := at + int64(i) + 1
			if last >= 0 {
				found++
			}
			last = end
			if found == n {
				return end, found, nil
			}
		}
	}
	if last >= 0 {
		found++
	}
	return 0, found, nil
}

// repair ends a half-written line, which readers then skip.
func (f *jsonFormat) repair(file readerAt, size int64) (cut int64, add []byte, err error) {
	if size == 0 {
		return 0, nil, nil
	}
	var last [1]byte
	if _, err := file.ReadAt(last[:], size-1); err != nil {
		return 0, nil, err
	}
	if last[0] == '\n' {
		return size, nil, nil
	}
	return size, newlineByte, nil
}
