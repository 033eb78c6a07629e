package logs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
)

// Request says which log to copy, and how.
type Request struct {
	Driver, Path string
	Read         logfile.ReadOptions
	Timestamps   bool
	Details      bool // what the log was configured to add to each line

	Stdout, Stderr bool // which of the two is wanted
	Framed         bool // in Docker's multiplexed stream, each entry a frame
}

// timestamp is RFC 3339 with all nine digits: lines align, and sort as text.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// flushSize is how much is collected before a Write while entries are there to
// be sent: many at once, none late.
const flushSize = 32 << 10

// Log is a log that is read: from where it stood when it was opened.
type Log struct {
	req    Request
	reader *logfile.Reader
}

// Open finds what is wanted of a log. What is written afterwards comes to those
// that follow it: whoever answers a client opens first.
func Open(req Request) (*Log, error) {
	reader, err := logfile.NewReader(req.Driver, req.Path, req.Read)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	return &Log{req, reader}, nil
}

// Close gives the log back.
func (l *Log) Close() error { return l.reader.Close() }

// Copy writes a log to w.
func Copy(ctx context.Context, req Request, w io.Writer) (err error) {
	l, err := Open(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return l.Copy(ctx, w)
}

// Copy writes it to w.
func (l *Log) Copy(ctx context.Context, w io.Writer) error {
	req, reader := l.req, l.reader
	var collected []byte
	for {
		entry, err := reader.Buffered()
		if entry == nil && err == nil {
			if collected, err = send(w, collected); err != nil {
				return err
			}
			entry, err = reader.Next(ctx)
		}
		if err != nil {
			_, unsent := send(w, collected)
			if errors.Is(err, io.EOF) {
				return unsent
			}
			return errors.Join(fmt.Errorf("reading the log: %w", err), unsent)
		}
		if !req.wants(entry.Stream) {
			continue
		}
		if collected = req.render(collected, entry); len(collected) >= flushSize {
			if collected, err = send(w, collected); err != nil {
				return err
			}
		}
	}
}

// send writes what was collected and returns its memory.
func send(w io.Writer, collected []byte) ([]byte, error) {
	if len(collected) > 0 {
		if _, err := w.Write(collected); err != nil {
			return nil, errdefs.Canceled.Errorf("writing the log: %w", err)
		}
	}
	return collected[:0], nil
}

func (req *Request) wants(s logfile.Stream) bool {
	return s == logfile.Stdout && req.Stdout || s == logfile.Stderr && req.Stderr
}

// render appends an entry as the client sees it.
func (req *Request) render(to []byte, entry *logfile.Entry) []byte {
	begin := len(to)
	if req.Framed {
		to = append(to, byte(entry.Stream), 0, 0, 0, 0, 0, 0, 0) // the length is filled in below
	}
	if req.Timestamps {
		to = entry.Time.UTC().AppendFormat(to, timestamp)
		to = append(to, ' ')
	}
	if req.Details {
		to = append(to, details(entry.Attrs)...)
		to = append(to, ' ')
	}
	to = append(to, entry.Line...)
	if req.Framed {
		binary.BigEndian.PutUint32(to[begin+4:], uint32(len(to)-begin-frameHeader))
	}
	return to
}

func details(attrs map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		pairs = append(pairs, url.QueryEscape(name)+"="+url.QueryEscape(attrs[name]))
	}
	return strings.Join(pairs, ",")
}

// Following returns the options of a reader that follows until done.
func Following(since, until time.Time, tail int, done <-chan struct{}) logfile.ReadOptions {
	return logfile.ReadOptions{Since: since, Until: until, Tail: tail, Follow: done != nil, Done: done}
}
