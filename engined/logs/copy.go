package logs

import (
	"context"
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
}

// timestamp is RFC 3339 with all nine digits: lines align, and sort as text.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// Copy writes a log to stdout and stderr, of which nil is not wanted. Each
// entry is one Write.
func Copy(ctx context.Context, req Request, stdout, stderr io.Writer) (err error) {
	reader, err := logfile.NewReader(req.Driver, req.Path, req.Read)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var line []byte
	for {
		entry, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
		to := stdout
		if entry.Stream == logfile.Stderr {
			to = stderr
		}
		if to == nil {
			continue
		}
		line = req.render(line[:0], entry)
		if _, err := to.Write(line); err != nil {
			return errdefs.Canceled.Errorf("writing the log: %w", err)
		}
	}
}

// render appends an entry as the client sees it.
func (req Request) render(line []byte, entry *logfile.Entry) []byte {
	if req.Timestamps {
		line = entry.Time.UTC().AppendFormat(line, timestamp)
		line = append(line, ' ')
	}
	if req.Details {
		line = append(line, details(entry.Attrs)...)
		line = append(line, ' ')
	}
	return append(line, entry.Line...)
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
