package api

import (
	"io"
	"net/http"
	"strconv"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

// containerLogs streams a container's log: raw of a terminal, else in frames.
func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	options := container.LogsOptions{
		Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Follow: q.flag("follow"), Timestamps: q.flag("timestamps"), Details: q.flag("details"),
		Since: q.moment("since"), Until: q.moment("until"),
		Tail: tail(q.text("tail")),
	}
	if q.err != nil {
		return q.err
	}
	if !options.Stdout && !options.Stderr {
		return errdefs.InvalidArgument.Errorf("Bad parameters: you must choose at least one stream")
	}
	return s.Containers.Logs(r.Context(), r.PathValue("id"), options, &logAnswer{w: w, version: versionOf(r)})
}

// tail reads how many lines are wanted; dockerd takes anything that is not a
// number for "all".
func tail(given string) int {
	lines, err := strconv.Atoi(given)
	if err != nil || lines < 0 {
		return -1
	}
	return lines
}

// logAnswer is the HTTP answer as the log's reader sees it.
type logAnswer struct {
	w       http.ResponseWriter
	version Version
}

// Begin sends the headers and returns where the log goes.
func (l *logAnswer) Begin(tty bool) (io.Writer, error) {
	if !l.version.Before(42) {
		l.w.Header().Set("Content-Type", l.version.streamType(tty))
	}
	l.w.WriteHeader(http.StatusOK)
	return flushed(l.w), http.NewResponseController(l.w).Flush()
}

// containerAttach takes the connection over for a container's streams.
func (s *Server) containerAttach(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	options := container.AttachOptions{
		Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Logs: q.flag("logs"), Stream: q.flag("stream"), DetachKeys: q.text("detachKeys"),
	}
	if q.err != nil {
		return q.err
	}
	return s.Containers.Attach(r.Context(), r.PathValue("id"), options, upgrader(w, r))
}
