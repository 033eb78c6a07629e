package shim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

func TestPacketsKeepTheirBytes(t *testing.T) {
	p, err := MakePacket(Signal, 0x01020304, SignalRequest{"init", 15})
	if err != nil {
		t.Fatal(err)
	}
	message := AppendPacket(nil, p)
	if want := "\x01\x06\x00\x00\x04\x03\x02\x01" + `{"process":"init","signal":15}`; string(message) != want {
		t.Errorf("got %q, want %q", message, want)
	}
	back, err := ParsePacket(message)
	var req SignalRequest
	if err != nil || back.Decode(&req) != nil || back.ID != p.ID || back.Type != Signal || req.Signal != 15 {
		t.Errorf("got %+v %+v, %v", back, req, err)
	}
}

func TestTooLongBodiesAreRefused(t *testing.T) {
	_, err := MakePacket(Attach, 1, AttachRequest{Read: make([]byte, MaxBody)})
	if errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add([]byte("\x01\x03\x00\x00\x01\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, message []byte) {
		p, err := ParsePacket(message)
		if err == nil && !bytes.Equal(AppendPacket(nil, p), message) {
			t.Fatalf("%q becomes %+v", message, p)
		}
		for _, body := range []any{&ProcessRef{}, &AttachRequest{}, &errdefs.Wire{}} {
			p.Decode(body) // must not panic
		}
	})
}

// pair returns a client and the other end of its connection.
func pair(t *testing.T) (*Client, *Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	client, other := NewClient(NewConn(fds[0])), NewConn(fds[1])
	t.Cleanup(func() {
		client.Close()
		other.Close()
	})
	return client, other
}

func TestAnswersFindTheirRequestsInAnyOrder(t *testing.T) {
	client, other := pair(t)
	go func() {
		var asked []Packet
		for range 2 {
			p, err := other.Receive(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			p.Body = bytes.Clone(p.Body)
			asked = append(asked, p)
		}
		note, _ := MakePacket(Exited, 0, ProcessRef{"init"})
		other.Send(context.Background(), note)
		for i := 1; i >= 0; i-- {
			var ref ProcessRef
			asked[i].Decode(&ref)
			answer, _ := MakePacket(Ok, asked[i].ID, nil)
			if ref.Process == "bad" {
				answer, _ = MakePacket(Error, asked[i].ID, errdefs.ToWire(errdefs.NotFound.Coded(errdefs.NoSuchExec, "bad", "no bad")))
			}
			other.Send(context.Background(), answer)
		}
	}()
	good := make(chan error, 1)
	go func() { good <- client.Forget(context.Background(), "good") }()
	err := client.Forget(context.Background(), "bad")
	if code, subject := errdefs.CodeAndSubject(err); code != errdefs.NoSuchExec || subject != "bad" {
		t.Errorf("got %v", err)
	}
	if err := <-good; err != nil {
		t.Error(err)
	}
	if note, err := client.Next(context.Background()); err != nil || note.Exited == nil || note.Exited.Process != "init" {
		t.Errorf("note %+v, %v", note, err)
	}
}

func TestCallsEndWithTheirContextAndTheConnection(t *testing.T) {
	client, other := pair(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := client.Hello(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with no answer: %v", err)
	}
	other.Close()
	<-client.Done()
	if _, err := client.Hello(context.Background()); errdefs.KindOf(err) != errdefs.Unavailable {
		t.Errorf("with no shim: %v", err)
	}
	if _, err := client.Next(context.Background()); !errors.Is(err, io.EOF) {
		t.Errorf("next: %v", err)
	}
}

// TestCallsToAFullSocketEndInTheirOwnTime: to a shim that reads nothing a call with
// little time does not wait for one that has more.
func TestCallsToAFullSocketEndInTheirOwnTime(t *testing.T) {
	client, other := pair(t)
	full := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		return client.conn.Send(ctx, Packet{Type: Hello, ID: 1, Body: make([]byte, 1<<10)})
	}
	for full() == nil {
	}
	patient := make(chan error, 1)
	go func() { patient <- client.Signal(context.Background(), "init", 1) }()
	for len(client.send) == 0 {
		time.Sleep(time.Millisecond) // it tells nobody that it has its turn
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := client.Signal(ctx, "init", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	other.Close()
	if err := <-patient; errdefs.KindOf(err) != errdefs.Unavailable {
		t.Errorf("with no shim: %v", err)
	}
}

func TestDescriptorsTravel(t *testing.T) {
	client, other := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	go client.Attach(context.Background(), AttachRequest{Process: "init"}, write.Fd())
	p, err := other.Receive(context.Background())
	if err != nil || len(p.FDs) != 1 {
		t.Fatalf("got %+v, %v", p, err)
	}
	write.Close()
	unix.Write(p.FDs[0], []byte("x"))
	unix.Close(p.FDs[0])
	if got, err := io.ReadAll(read); string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFilesAreWholeOrAbsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), ExitFile)
	var exit Exit
	if err := ReadFile(path, &exit); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if err := WriteFile(path, Exit{Status: 7}); err != nil {
		t.Fatal(err)
	}
	if err := ReadFile(path, &exit); err != nil || exit.Status != 7 {
		t.Errorf("got %+v, %v", exit, err)
	}
	os.WriteFile(path, []byte(`{"status":`), 0o600)
	if err := ReadFile(path, &exit); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("torn: %v", err)
	}
}

func TestStartTimeIsThatOfTheProcess(t *testing.T) {
	mine, err := StartTime(os.Getpid())
	if err != nil || mine == 0 {
		t.Errorf("%d, %v", mine, err)
	}
	if first, err := StartTime(1); err != nil || first > mine {
		t.Errorf("init started at %d, after us at %d (%v)", first, mine, err)
	}
}

func TestReceivingKeepsNoGreatBuffer(t *testing.T) {
	client, other := pair(t)
	defer client.Close()
	long := strings.Repeat("x", MaxBody-2)
	go func() {
		for _, process := range []string{"short", long, "short"} {
			body := []byte(`"` + process + `"`)
			client.conn.Send(context.Background(), Packet{Type: Release, ID: 1, Body: body})
		}
	}()
	for i, want := range []string{"short", long, "short"} {
		p, err := other.Receive(context.Background())
		if err != nil || string(p.Body) != `"`+want+`"` {
			t.Fatalf("packet %d: %d bytes, %v", i, len(p.Body), err)
		}
	}
	if len(other.buffer) > usualSize {
		t.Errorf("%d bytes are kept", len(other.buffer))
	}
}
