package api

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/engined/engined/proto/errdefs"
)

// Server answers the API's requests with the nouns it is given.
type Server struct {
	Containers containers
	Images     images
	Networks   networks
	Registries registries
	Events     eventLog
	System     daemon

	Agent   string          // the Server header
	Log     *slog.Logger    // never nil
	Closing <-chan struct{} // closed when the daemon begins to stop: streams end
}

// Handler returns the API.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.register(mux, routes)
	return s.recovered(s.versioned(s.logged(mux)))
}

// tarType is the media type of answers of which a part is of no use.
const tarType = "application/x-tar"

// handler is what a route leads to: it writes an answer or returns an error.
type handler func(s *Server, w http.ResponseWriter, r *http.Request) error

// served wraps a route's handler: its error becomes the answer.
func (s *Server) served(row route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := versionOf(r); v.Before(row.since) {
			s.notFound(w, r)
			return
		}
		if row.stream {
			ctx, cancel := s.untilClosing(r.Context())
			defer cancel()
			r = r.WithContext(ctx)
		}
		a := &answer{ResponseWriter: w}
		err := row.handle(s, a, r)
		if err == nil {
			return
		}
		switch {
		case !a.begun:
			writeError(a, r, s.Log, err)
		case w.Header().Get("Content-Type") == tarType:
			if r.Context().Err() == nil { // else the client went, and knows
				s.Log.Error("an archive ended early", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			panic(http.ErrAbortHandler) // cuts the connection: half a tar must not look like a whole one
		default:
			s.Log.Debug("stream ended", "method", r.Method, "path", r.URL.Path, "error", err)
		}
	})
}

// untilClosing returns a context that also ends when the daemon stops.
func (s *Server) untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.Closing:
			cancel(errdefs.Unavailable.Errorf("the daemon is stopping"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// answer is a ResponseWriter that knows whether anything was written.
type answer struct {
	http.ResponseWriter
	begun bool // headers sent, or the connection taken over
}

func (a *answer) WriteHeader(code int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(code)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Flush sends what was written.
func (a *answer) Flush() {
	a.begun = true
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// recovered answers a panicking handler's request with 500.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch cause := recover(); cause {
			case nil:
			case http.ErrAbortHandler:
				panic(cause)
			default:
				s.Log.Error("panic in a handler", "method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
				writeError(w, r, s.Log, errdefs.Internal.Errorf("internal error: see the daemon's log"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// versioned takes the version off the path and refuses those not served.
func (s *Server) versioned(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, version := cutVersion(r)
		header := w.Header()
		header.Set("Server", s.Agent)
		header.Set("Api-Version", Newest.String())
		header.Set("Ostype", "linux")
		header.Set("Docker-Experimental", "false")
		if err := version.check(); err != nil {
			writeError(w, r, s.Log, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// logged tells each request at debug level, in dockerd's words.
func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if s.Log.Enabled(ctx, slog.LevelDebug) {
			s.Log.Debug("Calling "+r.Method+" "+r.RequestURI, "client", clientOf(r))
		}
		next.ServeHTTP(w, r)
	})
}

// clientOf returns a request's user agent, cut to what a log line bears.
func clientOf(r *http.Request) string {
	agent := strings.ToValidUTF8(r.UserAgent(), "?")
	if len(agent) > 100 {
		agent = agent[:100]
	}
	return agent
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, r, s.Log, errPageNotFound)
}

var errPageNotFound error = errdefs.NotFound.Errorf("page not found")
