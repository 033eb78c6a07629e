package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 120_000_000, time.UTC)

func open(t testing.TB, spec shim.Log) *Writer {
	t.Helper()
	w, err := Open(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func readAll(t testing.TB, driver, path string, opts ReadOptions) []string {
	t.Helper()
	r, err := NewReader(driver, path, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lines []string
	for {
		e, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, e.Stream.String()+":"+string(e.Line))
	}
	if r.Skipped() != 0 {
		t.Errorf("skipped %d", r.Skipped())
	}
	return lines
}

func TestJSONFileIsDockersFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	w := open(t, shim.Log{Driver: JSONFile, Path: path, Attrs: map[string]string{"b": "2", "a": `"`}})
	w.Write(Stdout, []byte("hello <b>&\t\"\\\r\x01 é\xff\u2028\nrest"), noon)
	w.Write(Stderr, []byte("e\n"), noon.Add(80*time.Millisecond-1))
	w.End(noon.Add(880 * time.Millisecond))
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const attrs = `"attrs":{"a":"\"","b":"2"}`
	want := `{"log":"hello \u003cb\u003e\u0026\u0009\"\\\r\u0001 é\ufffd\u2028\n","stream":"stdout",` + attrs + `,"time":"2026-03-01T12:00:00.12Z"}` + "\n" +
		`{"log":"e\n","stream":"stderr",` + attrs + `,"time":"2026-03-01T12:00:00.199999999Z"}` + "\n" +
		`{"log":"rest","stream":"stdout",` + attrs + `,"time":"2026-03-01T12:00:01Z"}` + "\n"
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	long := strings.Repeat("x", MaxChunk) + "tail"
	for _, driver := range []string{JSONFile, Local} {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w := open(t, shim.Log{Driver: driver, Path: path})
			w.Write(Stdout, []byte("one\n\ntwo \\ \" \u2028\n"+long+"\nhal"), noon)
			w.Write(Stderr, []byte("err\n"), noon)
			w.Write(Stdout, []byte("f\nend"), noon)
			w.End(noon)
			want := []string{"stdout:one\n", "stdout:\n", "stdout:two \\ \" \u2028\n", "stdout:" + long[:MaxChunk], "stdout:tail\n",
				"stderr:err\n", "stdout:half\n", "stdout:end"}
			got := readAll(t, driver, path, ReadOptions{Tail: -1})
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Errorf("got %q\nwant %q", got, want)
			}
			for n := range want {
				if got := readAll(t, driver, path, ReadOptions{Tail: n}); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want[len(want)-n:]) {
					t.Errorf("tail %d: got %q", n, got)
				}
			}
		})
	}
}

func TestSinceAndUntilBoundWhatIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, shim.Log{Driver: JSONFile, Path: path})
	for i := range 5 {
		w.Write(Stdout, fmt.Appendf(nil, "%d\n", i), noon.Add(time.Duration(i)*time.Second))
	}
	got := readAll(t, JSONFile, path, ReadOptions{Tail: -1, Since: noon.Add(time.Second), Until: noon.Add(3 * time.Second)})
	if strings.Join(got, "") != "stdout:1\nstdout:2\nstdout:3\n" {
		t.Errorf("got %q", got)
	}
}

func TestRotationKeepsTheNewestFiles(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprint(driver, compress), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "log")
				w := open(t, shim.Log{Driver: driver, Path: path, MaxSize: 2000, MaxFile: 3, Compress: compress})
				for i := range 300 {
					w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), noon)
					compressNow(t, w)
				}
				names, err := readNames(dir)
				if err != nil || len(names) != 3 {
					t.Fatalf("files %v, %v", names, err)
				}
				got := readAll(t, driver, path, ReadOptions{Tail: -1})
				for i, line := range got {
					if want := fmt.Sprintf("stdout:line %d\n", 300-len(got)+i); line != want {
						t.Fatalf("line %d is %q, want %q", i, line, want)
					}
				}
				if len(got) < 40 {
					t.Errorf("only %d lines are left", len(got))
				}
				for _, n := range []int{1, 20, 40} {
					if tail := readAll(t, driver, path, ReadOptions{Tail: n}); len(tail) != n || tail[n-1] != "stdout:line 299\n" {
						t.Errorf("tail %d has %d lines", n, len(tail))
					}
				}
			})
		}
	}
}

// compressNow does what the shim has a child do.
func compressNow(t *testing.T, w *Writer) {
	c, ok := w.Compress()
	if !ok {
		return
	}
	from, to := os.NewFile(uintptr(c.From), "from"), os.NewFile(uintptr(c.To), "to")
	defer from.Close()
	defer to.Close()
	err := Gzip(from, to)
	if err != nil {
		t.Error(err)
	}
	w.Compressed(err == nil)
}

// Where compressing fails it would fail again: the disk is full until something
// goes. Nothing is lost meanwhile.
func TestFailedCompressionIsNotRetriedBeforeTheNextRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, shim.Log{Driver: JSONFile, Path: path, MaxSize: 2000, MaxFile: 5, Compress: true})
	written := 0
	fill := func(files int) {
		for len(w.kept) < files {
			w.Write(Stdout, fmt.Appendf(nil, "line %d\n", written), noon)
			written++
		}
	}
	fill(1)
	for range 2 {
		c, ok := w.Compress()
		if !ok {
			t.Fatal("nothing is to be compressed after a rotation")
		}
		os.NewFile(uintptr(c.From), "from").Close()
		os.NewFile(uintptr(c.To), "to").Close()
		w.Compressed(false)
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", written), noon)
		written++
		if _, again := w.Compress(); again {
			t.Fatal("what has just failed is tried again")
		}
		fill(len(w.kept) + 1)
	}
	for range w.kept {
		compressNow(t, w)
	}
	for i, file := range w.kept {
		if !file.compressed {
			t.Errorf("rotated file %d is not compressed after all", i+1)
		}
	}
	if got := readAll(t, JSONFile, path, ReadOptions{Tail: -1}); len(got) != written {
		t.Errorf("%d of %d lines are left", len(got), written)
	}
}

func TestFollowerLosesNothingAcrossRotation(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		t.Run(driver, func(t *testing.T) {
			const lines = 100_000
			dir := t.TempDir()
			path := filepath.Join(dir, "log")
			w := open(t, shim.Log{Driver: driver, Path: path, MaxSize: 200_000, MaxFile: 2})
			done := make(chan struct{})
			r, err := NewReader(driver, path, ReadOptions{Tail: -1, Follow: true, Done: done})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			go func() {
				defer close(done)
				for i := range lines {
					w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), noon)
				}
			}()
			for i := range lines {
				e, err := r.Next(context.Background())
				if err != nil {
					t.Fatalf("line %d: %v", i, err)
				}
				if want := fmt.Sprintf("line %d\n", i); string(e.Line) != want {
					t.Fatalf("got %q, want %q", e.Line, want)
				}
			}
			if _, err := r.Next(context.Background()); !errors.Is(err, io.EOF) {
				t.Fatalf("after the last line: %v", err)
			}
			r.Close()
			w.Write(Stdout, bytes.Repeat([]byte("x\n"), 10_000), noon)
			if names, _ := readNames(dir); len(names) > 2 {
				t.Errorf("left are %v", names)
			}
		})
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log") // does not exist
	r, err := NewReader(JSONFile, path, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	w := open(t, shim.Log{Driver: JSONFile, Path: path})
	w.Write(Stdout, []byte("first\n"), noon)
	if e, err := r.Next(context.Background()); err != nil || string(e.Line) != "first\n" {
		t.Errorf("got %v, %v", e, err)
	}
}

func TestTornEndIsRepaired(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w := open(t, shim.Log{Driver: driver, Path: path})
			w.Write(Stdout, []byte("one\ntwo\n"), noon)
			st, _ := os.Stat(path)
			if err := os.Truncate(path, st.Size()-3); err != nil {
				t.Fatal(err)
			}
			w = open(t, shim.Log{Driver: driver, Path: path})
			w.Write(Stdout, []byte("three\n"), noon)
			r, err := NewReader(driver, path, ReadOptions{Tail: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for _, want := range []string{"one\n", "three\n"} {
				if e, err := r.Next(context.Background()); err != nil || string(e.Line) != want {
					t.Fatalf("got %v, %v; want %q", e, err, want)
				}
			}
		})
	}
}

// A writer that dies between a rotation's renames leaves no current file.
func TestWhatIsRotatedIsReadWithoutACurrentFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, shim.Log{Driver: JSONFile, Path: path, MaxSize: 100, MaxFile: 3})
	w.Write(Stdout, []byte("one\ntwo\nthree\nfour\n"), noon)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, JSONFile, path, ReadOptions{Tail: -1})
	if strings.Join(got, "") != "stdout:one\nstdout:two\nstdout:three\nstdout:four\n" {
		t.Errorf("%q", got)
	}
	r, err := NewReader(JSONFile, path, ReadOptions{Tail: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	again := open(t, shim.Log{Driver: JSONFile, Path: path})
	again.Write(Stdout, []byte("five\n"), noon)
	for _, want := range []string{"four\n", "five\n"} {
		if e, err := r.Next(t.Context()); err != nil || string(e.Line) != want {
			t.Fatalf("%v, %v; expected %q", e, err, want)
		}
	}
}

func TestFullDiskIsCountedAndSurvived(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, driver := range []string{JSONFile, Local} {
		f, _ := formatOf(driver, nil)
		w := &Writer{spec: shim.Log{Path: "/dev/full"}, format: f, fd: int(full.Fd())}
		w.Write(Stdout, []byte("a\nb\nc\n"), noon)
		if lost, reason := w.Lost(); lost != 3 || reason == nil {
			t.Errorf("%s: lost %d, %v", driver, lost, reason)
		}
	}
}

func TestBadSpecsNameTheField(t *testing.T) {
	for field, spec := range map[string]shim.Log{
		"driver": {Driver: "syslog", Path: "/x"}, "log.path": {Driver: Local, Path: "x"}, "log.max_size": {Driver: Local, Path: "/x", MaxSize: -1},
		"log.path is \"/no/such/log\"": {Driver: Local, Path: "/no/such/log"}, "log.path is \"/tmp\"": {Driver: JSONFile, Path: "/tmp"},
	} {
		_, err := Open(spec, nil)
		if errdefs.KindOf(err) != errdefs.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{2, 100} {
		for _, driver := range []string{JSONFile, Local} {
			b.Run(fmt.Sprint(driver, size), func(b *testing.B) {
				w := open(b, shim.Log{Driver: driver, Path: filepath.Join(b.TempDir(), "log"), MaxSize: 64 << 20, MaxFile: 2})
				w.scratch = make([]byte, 256<<10)
				batch := bytes.Repeat(append(bytes.Repeat([]byte("x"), size-1), '\n'), 65536/size)
				b.SetBytes(int64(len(batch)))
				for b.Loop() {
					w.Write(Stdout, batch, time.Now())
				}
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{2, 100} {
		for _, driver := range []string{JSONFile, Local} {
			b.Run(fmt.Sprint(driver, size), func(b *testing.B) {
				path := filepath.Join(b.TempDir(), "log")
				w := open(b, shim.Log{Driver: driver, Path: path})
				batch := bytes.Repeat(append(bytes.Repeat([]byte("x"), size-1), '\n'), 65536/size)
				for range 64 {
					w.Write(Stdout, batch, time.Now())
				}
				b.SetBytes(64 * int64(len(batch)))
				for b.Loop() {
					r, err := NewReader(driver, path, ReadOptions{Tail: -1})
					if err != nil {
						b.Fatal(err)
					}
					for {
						if _, err := r.Next(context.Background()); err != nil {
							break
						}
					}
					r.Close()
				}
			})
		}
	}
}
