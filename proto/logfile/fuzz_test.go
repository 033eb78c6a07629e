package logfile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/engined/engined/proto/shim"
)

func FuzzJSONRoundTrip(f *testing.F) {
	f.Add([]byte("a\"\\\n\x00é\xff\u2029"))
	f.Fuzz(func(t *testing.T, text []byte) {
		format := newJSONFormat(nil)
		format.begin(noon)
		line := format.append(nil, Stdout, text, true)
		var std struct{ Log string }
		if err := json.Unmarshal(line, &std); err != nil {
			t.Fatalf("%q is not JSON: %v", line, err)
		}
		var e Entry
		if size, good := format.parse(line, &e); !good || size != len(line) {
			t.Fatalf("%q does not parse", line)
		}
		if string(e.Line) != std.Log || std.Log != string([]rune(string(text)))+"\n" {
			t.Fatalf("got %q, encoding/json reads %q", e.Line, std.Log)
		}
	})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","time":"2026-03-01T12:00:00.12Z"}`+"\n"), true)
	f.Add((&localFormat{}).append(nil, Stdout, []byte("text"), true), false)
	f.Fuzz(func(t *testing.T, content []byte, asJSON bool) {
		driver := Local
		if asJSON {
			driver = JSONFile
		}
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tail := range []int{-1, 0, 2} {
			r, err := NewReader(driver, path, ReadOptions{Tail: tail})
			if err != nil {
				t.Fatal(err)
			}
			for n := 0; ; n++ {
				if _, err := r.Next(context.Background()); err != nil {
					break
				}
				if n > len(content) {
					t.Fatal("more entries than bytes")
				}
			}
			r.Close()
		}
		if w, err := Open(shim.Log{Driver: driver, Path: path}, nil); err == nil {
			w.Write(Stdout, []byte("after\n"), noon)
			w.Close()
			lines, err := os.ReadFile(path)
			if err != nil || !bytes.Contains(lines, []byte("after")) {
				t.Fatalf("%q, %v", lines, err)
			}
		}
	})
}

// FuzzSecondEntryParses: an entry is decoded alike whatever was before it. The
// decoder remembers what it saw last.
func FuzzSecondEntryParses(f *testing.F) {
	const like = `{"log":"x\n","stream":"stdout","time":"2026-03-01T12:00:00.12Z"}`
	f.Add([]byte(like), []byte(like))
	f.Add([]byte(like), []byte(`{"log":"a\\","stream":"stdout","time":"2026-03-01T12:00:00.12Z"}`))
	f.Add([]byte(`{"log":"","stream":"stderr","attrs":{"a":"b"},"time":"2026-03-01T12:00:00Z"}`), []byte(like))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if bytes.IndexByte(first, '\n') >= 0 || bytes.IndexByte(second, '\n') >= 0 {
			return
		}
		fresh, used := newJSONFormat(nil), newJSONFormat(nil)
		var before, want, got Entry
		used.parse(append(slices.Clone(first), '\n'), &before)
		_, wantGood := fresh.parse(append(slices.Clone(second), '\n'), &want)
		_, gotGood := used.parse(append(slices.Clone(second), '\n'), &got)
		if wantGood != gotGood || wantGood && fmt.Sprintf("%+v", want) != fmt.Sprintf("%+v", got) {
			t.Fatalf("after %q, %q is %v %+v, alone %v %+v", first, second, gotGood, got, wantGood, want)
		}
	})
}

// FuzzCut: the entries are the same however a stream is cut into reads.
func FuzzCut(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nrest"), uint16(3))
	f.Add(append(bytes.Repeat([]byte("x"), MaxChunk), "\ny\n"...), uint16(MaxChunk))
	f.Add(bytes.Repeat([]byte("long"), MaxChunk), uint16(5000))
	f.Fuzz(func(t *testing.T, text []byte, step uint16) {
		if len(text) > 4*MaxChunk || len(text)/(int(step)+1) > 100 {
			return // as slow as it is unlikely to show more
		}
		var want []byte
		line := 0
		format := &localFormat{}
		format.begin(noon)
		for i, b := range text { // the rule itself, a byte at a time
			switch {
			case b == '\n':
				want = format.append(want, Stdout, text[line:i], true)
				line = i + 1
			case i+1-line == MaxChunk:
				want = format.append(want, Stdout, text[line:i+1], false)
				line = i + 1
			}
		}
		if line < len(text) {
			want = format.append(want, Stdout, text[line:], false)
		}
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, shim.Log{Driver: Local, Path: path})
		for part := range slices.Chunk(text, int(step)+1) {
			w.Write(Stdout, part, noon)
		}
		w.End(noon)
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, expected %d, %v", len(got), len(want), err)
		}
	})
}
