package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"sort"
	"time"
)

// jsonFormat is json-file.
type jsonFormat struct {
	attrs []byte // `,"attrs":{...}` or nothing
	clock clock
	tails [Stderr + 1][]byte // what follows a line in this batch, from its escaped newline on

	text      []byte // parse's unescaped line
	seconds   secondCache
	end       []byte // what followed the last entry's text, from its closing quote on
	last      Entry  // that entry: those of one batch differ in their text alone
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
		tail := append(f.tails[s][:0], `\n","stream":"`...)
		tail = append(tail, s.String()...)
		tail = append(tail, '"')
		tail = append(tail, f.attrs...)
		tail = append(tail, `,"time":"`...)
		tail = append(tail, stamp...)
		f.tails[s] = append(tail, "\"}\n"...)
	}
}

// logKey begins each line of what this package writes.
const logKey = `{"log":"`

func (f *jsonFormat) append(dst []byte, s Stream, line []byte, newline bool) []byte {
	dst = appendEscaped(append(dst, logKey...), line)
	tail := f.tails[s]
	if !newline {
		tail = tail[len(`\n`):]
	}
	return append(dst, tail...)
}

func (f *jsonFormat) lines(dst []byte, s Stream, data []byte, limit int) (_ []byte, done int) {
	tail := f.tails[s]
	for len(dst) < limit {
		end := bytes.IndexByte(data[done:], '\n')
		if end < 0 || end >= MaxChunk {
			break
		}
		dst = appendEscaped(append(dst, logKey...), data[done:done+end])
		dst = append(dst, tail...)
		done += end + 1
	}
	return dst, done
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
	line := buf[:end]
	return end + 1, f.parseLike(line, e) || f.parseFast(line, e) || f.parseAny(line, e)
}

// parseLike decodes an entry whose members but the text are the last one's. It
// unescapes the newline, mostly all there is to unescape, in place.
func (f *jsonFormat) parseLike(line []byte, e *Entry) bool {
	if len(f.end) == 0 || len(line) < len(logKey)+len(f.end) || string(line[:len(logKey)]) != logKey || !bytes.HasSuffix(line, f.end) {
		return false
	}
	text := line[len(logKey) : len(line)-len(f.end)]
	switch escape := bytes.IndexByte(text, '\\'); {
	case escape < 0:
	case escape == len(text)-2 && text[escape+1] == 'n':
		text = text[:escape+1]
	default:
		return false
	}
	if bytes.IndexByte(text, '"') >= 0 { // not what we write
		return false
	}
	if n := len(text) - 1; n >= 0 && text[n] == '\\' {
		text[n] = '\n'
	}
	*e = f.last
	e.Line = text
	return true
}

// parseFast decodes what this package writes: the members in their order.
func (f *jsonFormat) parseFast(line []byte, e *Entry) bool {
	rest, ok := bytes.CutPrefix(line, []byte(logKey))
	if !ok {
		return false
	}
	f.text, rest, ok = unescape(f.text[:0], rest)
	if !ok {
		return false
	}
	after := rest
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
	if e.Time, ok = f.seconds.parse(stamp); !ok {
		return false
	}
	f.end = append(append(f.end[:0], '"'), after...)
	f.last = *e
	e.Line = f.text
	return true
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
