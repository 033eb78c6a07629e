package dbus

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// values are one of each type, and containers whose alignment is easy to get
// wrong.
var values = []any{
	byte(7), true, int16(-2), uint16(3), int32(-4), uint32(5), int64(-6), uint64(math.MaxUint64), 1.5, "text", Path("/a/b"),
	Strings("a", "bcdefgh", ""), Bytes([]byte{1, 2, 3}), Array{Element: "t"}, Array{Element: "(sv)", Items: []any{
		Struct{"Name", Variant{"x"}}, Struct{"Other", Variant{Array{Element: "(ss)", Items: []any{Struct{"a", "rwm"}}}}},
	}},
	Struct{byte(1), uint64(2)}, Variant{Variant{int16(1)}},
}

func TestMessagesDecodeToWhatWasEncoded(t *testing.T) {
	want := &Message{
		Kind: MethodCall, Serial: 9, ReplySerial: 4, Path: "/org/example", Interface: "org.example.I",
		Member: "Do", Body: values,
	}
	data, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMessage(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
}

// The bytes are worked out by hand from the specification's "Message Format".
func TestCallAsTheSpecificationHasIt(t *testing.T) {
	call := &Message{Kind: MethodCall, Serial: 1, Path: "/", Member: "Go", Body: []any{"hi"}}
	data, err := call.encode()
	if err != nil {
		t.Fatal(err)
	}
	want := "l\x01\x00\x01" + "\x07\x00\x00\x00" + "\x01\x00\x00\x00" + "\x27\x00\x00\x00" +
		"\x01\x01o\x00\x01\x00\x00\x00/\x00" + "\x00\x00\x00\x00\x00\x00" +
		"\x03\x01s\x00\x02\x00\x00\x00Go\x00" + "\x00\x00\x00\x00\x00" +
		"\x08\x01g\x00\x01s\x00" + "\x00" +
		"\x02\x00\x00\x00hi\x00"
	if string(data) != want {
		t.Errorf("got  %q\nwant %q", data, want)
	}
}

func TestBigEndianMessagesAreRead(t *testing.T) {
	data := []byte("B\x04\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02\x00\x00\x00\x07\x08\x01g\x00\x01u\x00\x00\x00\x00\x00\x2a")
	m, err := decodeMessage(data)
	if err != nil || m.Kind != Signal || !reflect.DeepEqual(m.Body, []any{uint32(42)}) {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	good, err := (&Message{Kind: Signal, Serial: 1, Path: "/", Member: "M", Body: []any{"text", Strings("a")}}).encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, break_ := range map[string]func([]byte) []byte{
		"order":          func(b []byte) []byte { b[0] = 'x'; return b },
		"version":        func(b []byte) []byte { b[3] = 2; return b },
		"shorter":        func(b []byte) []byte { return b[:len(b)-1] },
		"longer":         func(b []byte) []byte { return append(b, 0) },
		"huge body":      func(b []byte) []byte { binary.LittleEndian.PutUint32(b[4:], math.MaxUint32); return b },
		"huge fields":    func(b []byte) []byte { binary.LittleEndian.PutUint32(b[12:], math.MaxUint32-7); return b },
		"field's type":   func(b []byte) []byte { b[18] = '?'; return b },
		"text past body": func(b []byte) []byte { b[len(b)-len("....text....a")-8] = 0xff; return b },
	} {
		if m, err := decodeMessage(break_(append([]byte(nil), good...))); err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
		}
	}
	for _, signature := range []string{"(", "()", "a", "(s", "a{", "z", strings.Repeat("a", 200) + "s", strings.Repeat("(", 100)} {
		if one, rest, err := firstType(signature, 0); err == nil {
			t.Errorf("type %q: accepted as %q and %q", signature, one, rest)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	for _, value := range values {
		data, err := (&Message{Kind: Signal, Serial: 1, Path: "/p", Member: "M", Body: []any{value}}).encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		size, err := messageSize(data)
		if err != nil {
			return
		}
		if size < 0 || size > maxMessage {
			t.Fatalf("size %d", size)
		}
		m, err := decodeMessage(data)
		if err != nil {
			return
		}
		if _, err := m.encode(); err != nil && !strings.Contains(err.Error(), "no type for dbus.signatureValue") && !strings.Contains(err.Error(), "found an element of type") {
			t.Fatalf("%+v does not encode: %v", m, err)
		}
	})
}

func TestTextsOfProperties(t *testing.T) {
	for text, want := range map[string]any{
		"true": true, "false": false, "42": int32(42), "-1": int32(-1), "0x10": int32(16), "1.5": 1.5, "uint64 10000000": uint64(10000000),
		"uint32 7": uint32(7), "byte 1": byte(1), "'a b'": "a b", `"it's"`: "it's", `'it\'s\n'`: "it's\n", " 'x' ": "x",
		"['a', \"b\"]": Strings("a", "b"), "@as []": Array{Element: "s"}, "@at [1, 2]": Array{Element: "t", Items: []any{uint64(1), uint64(2)}},
		"('x', uint32 1)": Struct{"x", uint32(1)}, "<'v'>": Variant{"v"}, "objectpath '/a'": Path("/a"), "[('/dev/null', 'rwm')]": Array{Element: "(ss)", Items: []any{Struct{"/dev/null", "rwm"}}},
		"int64 -9": int64(-9), "double 3": 3.0, "@u 4": uint32(4), "('one',)": Struct{"one"}, "boolean true": true,
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v; want %#v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "'open", "[1, 'a']", "[]", "()", "uint64", "uint64 -1", "byte 256", "1 2", "@", "@as", "@z 1", "<1", "['a'", "boolean 'x'", "99999999999", strings.Repeat("[", 100), "\"a\x00\""} {
		if got, err := Parse(text); err == nil {
			if data, err := (&Message{Body: []any{got}}).encode(); err != nil || len(data) > 0 {
				t.Errorf("%q: accepted as %#v", text, got)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("['a', <uint64 1>, ('x', @as [])]")
	f.Fuzz(func(t *testing.T, text string) {
		value, err := Parse(text)
		if err != nil {
			return
		}
		if _, err := (&Message{Body: []any{value}}).encode(); err != nil {
			t.Fatalf("%q: %#v does not encode: %v", text, value, err)
		}
	})
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"unix:path=/run/bus":                        "/run/bus",
		"unix:abstract=/tmp/x,guid=1":               "@/tmp/x",
		"tcp:host=a,port=1;unix:guid=2,path=/a%20b": "/a b",
		"unix:path=%2frun%2Fbus":                    "/run/bus",
	} {
		if got, err := socketPath(address); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", address, got, err, want)
		}
	}
	for _, address := range []string{"", "unix:", "tcp:host=a", "unix:path=%2", "unix:path=%zz", "unix:tmpdir=/tmp"} {
		if got, err := socketPath(address); err == nil {
			t.Errorf("%q: accepted as %q", address, got)
		}
	}
}

// peer is the other side of a connection: it authorises, then answers each
// call with what answers gives.
func peer(t *testing.T, answers func(call *Message) []*Message) *Conn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	client, server := &Conn{fd: pair[0]}, &Conn{fd: pair[1]}
	ctx := t.Context()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		for range 3 { // AUTH, DATA, BEGIN
			if _, err := server.line(ctx); err != nil {
				return
			}
		}
		if server.send(ctx, []byte("DATA\r\nOK 0123\r\n")) != nil {
			return
		}
		for {
			call, err := server.next(ctx)
			if err != nil {
				return
			}
			for _, m := range answers(call) {
				data, err := m.encode()
				if err != nil || server.send(ctx, data) != nil {
					return
				}
			}
		}
	}()
	t.Cleanup(func() {
		client.Close()
		<-done
	})
	if err := client.authorise(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestCallsFindTheirAnswersAmongSignals(t *testing.T) {
	signal := func(n uint32) *Message {
		return &Message{Kind: Signal, Serial: n + 100, Path: "/", Interface: "i.i", Member: "S", Body: []any{n}}
	}
	c := peer(t, func(call *Message) []*Message {
		return []*Message{
			signal(1), {Kind: MethodReturn, Serial: 50, ReplySerial: call.Serial + 1000, Body: []any{"another's"}},
			{Kind: MethodReturn, Serial: 51, ReplySerial: call.Serial, Body: []any{"ours"}}, signal(2), signal(3),
		}
	})
	answer, err := c.Call(t.Context(), &Message{Path: "/", Member: "M"})
	if err != nil || !reflect.DeepEqual(answer, []any{"ours"}) {
		t.Fatalf("got %v, %v", answer, err)
	}
	for _, want := range []uint32{1, 3} {
		m, err := c.Await(t.Context(), func(m *Message) bool { return m.Body[0] == want })
		if err != nil || m.Body[0] != want {
			t.Errorf("signal %d: got %+v, %v", want, m, err)
		}
	}
}

func TestErrorsOfMethodsKeepTheirNames(t *testing.T) {
	c := peer(t, func(call *Message) []*Message {
		return []*Message{{Kind: Error, Serial: 1, ReplySerial: call.Serial, ErrorName: "org.example.No", Body: []any{"because"}}}
	})
	_, err := c.Call(t.Context(), &Message{Path: "/", Member: "M"})
	var failed *CallError
	if !errors.As(err, &failed) || failed.Name != "org.example.No" || failed.Text != "because" {
		t.Errorf("got %v", err)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	c := peer(t, func(*Message) []*Message { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, &Message{Path: "/", Member: "M"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := DialBus(t.Context(), "unix:path="+path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
