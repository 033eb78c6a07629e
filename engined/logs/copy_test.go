package logs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
)

const content = `{"log":"one\n","stream":"stdout","attrs":{"b":"x y","a":"1"},"time":"2026-01-02T03:04:05.5Z"}
{"log":"bad\n","stream":"stderr","time":"2026-01-02T03:04:06Z"}
not json
{"log":"two\n","stream":"stdout","time":"2026-01-02T03:04:07Z"}
`

func request(t *testing.T) Request {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return Request{Driver: logfile.JSONFile, Path: path, Read: logfile.ReadOptions{Tail: -1}, Stdout: true}
}

func TestCopySelectsAndDecorates(t *testing.T) {
	for name, c := range map[string]struct {
		adjust func(*Request)
		want   string
	}{
		"all":        {func(r *Request) { r.Stderr = true }, "one\nbad\ntwo\n"},
		"stdout":     {func(*Request) {}, "one\ntwo\n"},
		"stderr":     {func(r *Request) { r.Stdout, r.Stderr = false, true }, "bad\n"},
		"frames":     {func(r *Request) { r.Stderr, r.Framed = true, true }, "\x01\x00\x00\x00\x00\x00\x00\x04one\n\x02\x00\x00\x00\x00\x00\x00\x04bad\n\x01\x00\x00\x00\x00\x00\x00\x04two\n"},
		"tail":       {func(r *Request) { r.Stderr = true; r.Read.Tail = 3 } /* what is no entry counts */, "bad\ntwo\n"},
		"timestamps": {func(r *Request) { r.Timestamps = true; r.Read.Tail = 1 }, "2026-01-02T03:04:07.000000000Z two\n"},
		"details": {func(r *Request) {
			r.Details = true
			r.Read.Until = time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC)
		}, "a=1,b=x+y one\n"},
		"since": {func(r *Request) { r.Read.Since = time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC) }, "two\n"},
	} {
		req := request(t)
		c.adjust(&req)
		var out bytes.Buffer
		if failed := Copy(t.Context(), req, &out); failed != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v", name, out.String(), failed)
		}
	}
}

func TestAFollowerReadsToTheEndAfterDone(t *testing.T) {
	req := request(t)
	done := make(chan struct{})
	close(done)
	req.Read = Following(time.Time{}, time.Time{}, -1, done)
	var out bytes.Buffer
	if err := Copy(t.Context(), req, &out); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// writes records what comes in each Write.
type writes chan string

func (w writes) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// Entries come together if they are there together, and none waits for another.
func TestAFollowerSendsBeforeItWaits(t *testing.T) {
	req := request(t)
	done, finished := make(chan struct{}), make(chan error)
	req.Read = Following(time.Time{}, time.Time{}, -1, done)
	out := make(writes)
	go func() { finished <- Copy(t.Context(), req, out) }()
	if got := <-out; got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
	log, err := os.OpenFile(req.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if _, err := log.WriteString(`{"log":"three\n","stream":"stdout","time":"2026-01-02T03:04:08Z"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-out; got != "three\n" {
		t.Errorf("%q", got)
	}
	close(done)
	if err := <-finished; err != nil {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestAReaderThatIsGoneIsNoFault(t *testing.T) {
	if err := Copy(t.Context(), request(t), broken{}); errdefs.KindOf(err) != errdefs.Canceled {
		t.Errorf("err = %v", err)
	}
}
