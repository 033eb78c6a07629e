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
	return Request{Driver: logfile.JSONFile, Path: path, Read: logfile.ReadOptions{Tail: -1}}
}

func TestCopySelectsAndDecorates(t *testing.T) {
	for name, c := range map[string]struct {
		adjust   func(*Request)
		out, err string
	}{
		"all":        {func(*Request) {}, "one\ntwo\n", "bad\n"},
		"tail":       {func(r *Request) { r.Read.Tail = 3 } /* what is no entry counts */, "two\n", "bad\n"},
		"timestamps": {func(r *Request) { r.Timestamps = true; r.Read.Tail = 1 }, "2026-01-02T03:04:07.000000000Z two\n", ""},
		"details": {func(r *Request) {
			r.Details = true
			r.Read.Until = time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC)
		}, "a=1,b=x+y one\n", ""},
		"since": {func(r *Request) { r.Read.Since = time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC) }, "two\n", ""},
	} {
		req := request(t)
		c.adjust(&req)
		var out, err bytes.Buffer
		if failed := Copy(t.Context(), req, &out, &err); failed != nil || out.String() != c.out || err.String() != c.err {
			t.Errorf("%s: %q and %q, %v", name, out.String(), err.String(), failed)
		}
	}
}

func TestAStreamThatIsNotWantedIsLeftOut(t *testing.T) {
	var err bytes.Buffer
	if failed := Copy(t.Context(), request(t), nil, &err); failed != nil || err.String() != "bad\n" {
		t.Errorf("%q, %v", err.String(), failed)
	}
}

func TestAFollowerReadsToTheEndAfterDone(t *testing.T) {
	req := request(t)
	done := make(chan struct{})
	close(done)
	req.Read = Following(time.Time{}, time.Time{}, -1, done)
	var out bytes.Buffer
	if err := Copy(t.Context(), req, &out, nil); err != nil || out.String() != "one\ntwo\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestAReaderThatIsGoneIsNoFault(t *testing.T) {
	if err := Copy(t.Context(), request(t), broken{}, nil); errdefs.KindOf(err) != errdefs.Canceled {
		t.Errorf("err = %v", err)
	}
}
