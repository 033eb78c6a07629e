package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types"
)

// writeJSON answers with a value. Go's encoder escapes <, > and &, which
// dockerd does not do.
func writeJSON(w http.ResponseWriter, code int, value any) error {
	w.Header().Set("Content-Type", types.MediaTypeJSON)
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// flushed returns a writer that sends every write at once.
func flushed(w http.ResponseWriter) io.Writer {
	return &flushWriter{w, http.NewResponseController(w)}
}

type flushWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flushWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.control.Flush()
}

// streamType returns the media type of a container's output. Until 1.42 there
// was but one.
func (v Version) streamType(tty bool) string {
	if tty || v.Before(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// upgrader returns the function that takes a request's connection over. It
// answers 101 UPGRADED to clients that asked for it, 200 to others (which have
// been doing this since before HTTP upgrades were Docker's way).
func upgrader(w http.ResponseWriter, r *http.Request) func(tty bool) (net.Conn, []byte, error) {
	return func(tty bool) (net.Conn, []byte, error) {
		if a, ok := w.(*answer); ok {
			a.begun = true
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return nil, nil, fmt.Errorf("taking the connection over: %w", err)
		}
		if err := greet(conn, r, versionOf(r).streamType(tty)); err != nil {
			conn.Close()
			return nil, nil, err
		}
		return conn, readAhead(buffered.Reader), nil
	}
}

// greet writes the answer's head to a connection just taken over.
func greet(conn net.Conn, r *http.Request, mediaType string) error {
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n\r\n"
	if wantsUpgrade(r) {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clearing the connection's deadline: %w", err)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return fmt.Errorf("answering the upgrade: %w", err)
	}
	return nil
}

// wantsUpgrade says whether a client asked for `Upgrade: tcp`. Clients that
// send any Upgrade header get 101, as from dockerd.
func wantsUpgrade(r *http.Request) bool {
	return strings.TrimSpace(r.Header.Get("Upgrade")) != ""
}

// readAhead returns what the HTTP server had already read past the request:
// it belongs to the stream.
func readAhead(reader *bufio.Reader) []byte {
	ahead, _ := reader.Peek(reader.Buffered())
	return append([]byte(nil), ahead...)
}
