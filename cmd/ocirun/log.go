package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/engined/engined/proto/errdefs"
)

// handler writes slog's records in the two shapes that runc's logrus writes,
// because engines parse them:
//
//	time="2006-01-02T15:04:05Z" level=error msg="container does not exist"
//	{"level":"error","msg":"container does not exist","time":"2006-01-02T15:04:05Z"}
//
// JSON lines of classified errors carry the keys kind, code and subject too.
type handler struct {
	level slog.Level
	json  bool
	attrs []slog.Attr

	mu  *sync.Mutex // guards out
	out io.Writer
}

// openLog points the default logger at --log in --log-format.
func (g *globals) openLog(stderr io.Writer) (func(), error) {
	h := &handler{level: slog.LevelInfo, mu: new(sync.Mutex), out: stderr}
	slog.SetDefault(slog.New(h))
	if g.debug {
		h.level = slog.LevelDebug
	}
	switch g.logFormat {
	case "text":
	case "json":
		h.json = true
	default:
		return nil, errdefs.InvalidArgument.Errorf("invalid log-format: %s", g.logFormat)
	}
	if g.log == "" {
		return func() {}, nil
	}
	file, err := os.OpenFile(g.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		return nil, err
	}
	h.out = file
	return func() { file.Close() }, nil
}

// logToStderr is for a command line that is not understood: --log may be what
// is wrong with it.
func logToStderr(stderr io.Writer) {
	slog.SetDefault(slog.New(&handler{level: slog.LevelInfo, mu: new(sync.Mutex), out: stderr}))
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *handler) WithGroup(string) slog.Handler { return h }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &with
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	line := h.textLine
	if h.json {
		line = h.jsonLine
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.out.Write(line(r, attrs))
	return err
}

func (h *handler) jsonLine(r slog.Record, attrs []slog.Attr) []byte {
	fields := make(map[string]any, len(attrs)+3)
	for _, a := range attrs {
		fields[a.Key] = a.Value.String()
	}
	fields["level"] = levelName(r.Level)
	fields["msg"] = r.Message
	fields["time"] = r.Time.Format(time.RFC3339)
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false) // logrus escapes; engines decode either, people read this one
	if err := encoder.Encode(fields); err != nil {
		return []byte(`{"level":"error","msg":"unloggable record"}` + "\n")
	}
	return line.Bytes()
}

// textLine leaves kind, code and subject out: they are for programs.
func (h *handler) textLine(r slog.Record, attrs []slog.Attr) []byte {
	var line bytes.Buffer
	fmt.Fprintf(&line, "time=%q level=%s msg=%s", r.Time.Format(time.RFC3339), levelName(r.Level), strconv.Quote(r.Message))
	for _, a := range attrs {
		switch a.Key {
		case "kind", "code", "subject":
		default:
			fmt.Fprintf(&line, " %s=%q", a.Key, a.Value.String())
		}
	}
	line.WriteByte('\n')
	return line.Bytes()
}

// levelName returns logrus's names.
func levelName(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warning"
	case level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

// wireAttrs returns an error's kind, code and subject for the log line.
func wireAttrs(err error) []any {
	wire := errdefs.ToWire(err)
	var attrs []any
	for _, field := range []struct{ key, value string }{
		{"kind", string(wire.Kind)}, {"code", string(wire.Code)}, {"subject", wire.Subject},
	} {
		if field.value != "" {
			attrs = append(attrs, slog.String(field.key, field.value))
		}
	}
	return attrs
}
