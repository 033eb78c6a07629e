package criu

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestMain is criu itself when called as criu.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "swrk" {
		os.Exit(pretend())
	}
	os.Exit(m.Run())
}

// everything is a request with every field set.
var everything = &Request{Type: Restore, Options: &Options{
	ImagesFD: 4, WorkFD: 5, Pid: 77, Root: "/root", LogFile: "restore.log", LeaveRunning: true, ExtUnixSockets: true, TCPEstablished: true,
	TCPSkipInFlight: true, EvasiveDevices: true, ShellJob: true, FileLocks: true, LinkRemap: true, AutoDedup: true, LazyPages: true,
	OrphanPtsMaster: true, RestoreSibling: true, TrackMemory: true, ParentImage: "../parent", PageServer: "::1", PageServerPort: 9876,
	CgroupMode: CgroupStrict, CgroupRoots: []CgroupRoot{{"", "/a"}, {"cpu", "/b"}}, FreezeCgroup: "/sys/fs/cgroup/freezer/c",
	Mounts: []Pair{{"/dev/null", "/dev/null"}, {"/etc/hosts", ""}}, External: []string{"net[1]:extRootNetNS"},
	InheritFDs: []InheritFD{{"pipe:[5]", 0}, {"extRootNetNS", 6}}, JoinNamespaces: []Pair{{"ipc", "/proc/1/ns/ipc"}}, EmptyNamespaces: 0x40000000,
	StatusFD: 8, ConfigFile: "/etc/criu/runc.conf", LSMProfile: "apparmor:x", LSMMountContext: "system_u",
}}

// TestRequestsAreWhatProtocReads: the files were checked with protoc:
//
//	xxd -r -p everything.hex | protoc --decode=criu_req -I /usr/include/criu rpc.proto
//
// printed everything.txt.
func TestRequestsAreWhatProtocReads(t *testing.T) {
	path := filepath.Join("testdata", "everything.hex")
	got := hex.EncodeToString(everything.Encode()) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, small := range []struct {
		request Request
		want    string
	}{
		{Request{Type: Version}, "080a"},
		{Request{Type: Notify, NotifySuccess: true}, "08061801"},
		{Request{Type: Notify}, "0806"},
		{Request{Type: FeatureCheck, Features: Features{LazyPages: true}}, "08092a021001"},
	} {
		if got := hex.EncodeToString(small.request.Encode()); got != small.want {
			t.Errorf("%+v: got %s, want %s", small.request, got, small.want)
		}
	}
}

// respond makes a response's bytes.
func respond(kind Type, success bool, more func(*message)) []byte {
	var m message
	m.required(1, uint64(kind))
	n := uint64(0)
	if success {
		n = 1
	}
	m.required(2, n)
	if more != nil {
		more(&m)
	}
	return m
}

func TestResponsesAreRead(t *testing.T) {
	for _, test := range []struct {
		data []byte
		want Response
	}{
		{respond(Dump, true, nil), Response{Type: Dump, Success: true}},
		{respond(Notify, true, func(m *message) { m.bytes(5, []byte("\x0a\x04lock\x10\x07")) }), Response{Type: Notify, Success: true, Script: "lock", Pid: 7}},
		{respond(Restore, true, func(m *message) { m.bytes(4, []byte("\x08\x2a")) }), Response{Type: Restore, Success: true, Pid: 42}},
		{respond(Dump, false, func(m *message) { m.number(7, 56); m.text(9, "no") }), Response{Type: Dump, Errno: 56, Message: "no"}},
		{respond(Version, true, func(m *message) { m.bytes(10, []byte("\x08\x03\x10\x11\x1a\x010\x20\x01")) }), Response{Type: Version, Success: true, Version: 31701}},
		{respond(Version, true, func(m *message) { m.bytes(10, []byte("\x08\x03\x10\x11\x1a\x05v3.17\x20\x01")) }), Response{Type: Version, Success: true, Version: 31800}},
		{respond(FeatureCheck, true, func(m *message) { m.bytes(8, []byte("\x08\x01\x10\x00\x18\x01")) }), Response{Type: FeatureCheck, Success: true, Features: Features{MemoryTracking: true}}},
		{append(respond(Dump, true, nil), "\xf9\x07........\xfd\x07....\xfa\x07\x03abc"...), Response{Type: Dump, Success: true}}, // fields of a later criu
	} {
		got, err := DecodeResponse(test.data)
		if err != nil || !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%x: got %+v, %v; want %+v", test.data, got, err, test.want)
		}
	}
	for _, data := range []string{"\x08", "\x00\x01", "\x0a\x05abc", "\x0b", "\x0d\x01", "\x09\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x2a\x02\x0a\x09"} {
		if got, err := DecodeResponse([]byte(data)); err == nil {
			t.Errorf("%x: accepted as %+v", data, got)
		}
	}
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(respond(Notify, true, func(m *message) { m.bytes(5, []byte("\x0a\x04lock\x10\x07")) }))
	f.Add(everything.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := DecodeResponse(data); err == nil && r == nil {
			t.Fatal("neither response nor error")
		}
	})
}

// pretend is a criu whose answers depend on the log file's name.
func pretend() int {
	data := make([]byte, maxResponse)
	n, err := unix.Read(3, data)
	if err != nil {
		return 2
	}
	write := func(data []byte) { unix.Send(3, data, 0) } //nolint:errcheck // the test notices
	switch request := data[:n]; {
	case bytes.Contains(request, []byte("silent")):
		fmt.Fprintln(os.Stderr, "noise\n(00.1) Error (criu/x.c:1): no kernel")
		return 1
	case bytes.Contains(request, []byte("refuse")):
		write(respond(Dump, false, func(m *message) { m.number(7, 3) }))
		fmt.Fprintln(os.Stderr, "Error (criu/y.c:2): refused")
		return 1
	case bytes.Contains(request, []byte("hang")):
		unix.Read(3, data) //nolint:errcheck // until it is killed
		return 1
	}
	for _, script := range []string{"network-lock", "post-dump"} {
		write(respond(Notify, true, func(m *message) {
			var notify message
			notify.text(1, script)
			notify.number(2, 5)
			m.bytes(5, notify)
		}))
		n, err := unix.Read(3, data)
		if err != nil || hex.EncodeToString(data[:n]) != "08061801" {
			write(respond(Dump, false, nil))
			return 1
		}
	}
	write(respond(Dump, true, nil))
	return 0
}

func serve(t *testing.T, ctx context.Context, log string, notify func(*Response, int) error) (*Process, *Response, error) {
	t.Helper()
	p, err := Start(os.Args[0], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Abort)
	response, err := p.Serve(ctx, &Request{Type: Dump, Options: &Options{WorkFD: -1, LogFile: log}}, notify)
	return p, response, err
}

func TestNotificationsAreAnswered(t *testing.T) {
	var scripts []string
	p, response, err := serve(t, t.Context(), "dump.log", func(r *Response, fd int) error {
		scripts = append(scripts, fmt.Sprint(r.Script, " ", r.Pid, " ", fd))
		return nil
	})
	if err != nil || !response.Success || !slices.Equal(scripts, []string{"network-lock 5 -1", "post-dump 5 -1"}) {
		t.Errorf("%+v, %v, %v", response, err, scripts)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestNotificationThatFailsStopsCriu(t *testing.T) {
	no := errors.New("no")
	_, _, err := serve(t, t.Context(), "dump.log", func(*Response, int) error { return no })
	if !errors.Is(err, no) || !strings.Contains(err.Error(), "network-lock: no") || !strings.Contains(err.Error(), "criu failed: type DUMP errno 0") {
		t.Errorf("got %v", err)
	}
}

func TestWhatCriuSaidIsTold(t *testing.T) {
	never := func(*Response, int) error { return errors.New("unexpected") }
	if _, _, err := serve(t, t.Context(), "silent.log", never); err == nil || err.Error() != "criu ended without an answer: Error (criu/x.c:1): no kernel" {
		t.Errorf("got %v", err)
	}
	p, _, err := serve(t, t.Context(), "refuse.log", never)
	if err == nil || err.Error() != "criu failed: type DUMP errno 3" || !slices.Equal(p.Reasons(), []string{"Error (criu/y.c:2): refused"}) {
		t.Errorf("got %v", err)
	}
	if _, err := Ask(t.Context(), "/no/criu", &Request{Type: Version}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestServingEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := serve(t, ctx, "hang.log", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// Also if criu is killed for it before it has been asked.
	p, err := Start(os.Args[0], nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Abort)
	if err := p.command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.socket)}}, int(time.Minute/time.Millisecond)); n != 1 { // POLLHUP
		t.Fatal(n, err)
	}
	if _, err := p.Serve(ctx, &Request{Type: Version}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReasonsAreTheFirstErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := "(00.1) fine\n(00.2) Error (a.c:1): one\n(00.3) Warn (b.c:2): not\n(00.4) Error (c.c:3): two\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Reasons(path); !slices.Equal(got, []string{"Error (a.c:1): one", "Error (c.c:3): two"}) {
		t.Errorf("got %q", got)
	}
	if got := Reasons(path + "none"); got != nil {
		t.Errorf("got %q", got)
	}
}
