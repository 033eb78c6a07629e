package api

import (
	"context"
	"log/slog"
	"net/http"
	"sync"

	"github.com/engined/engined/proto/errdefs"
)

// Gate is a handler whose requests wait until it is opened: listeners accept
// from the first moment on, and nobody sees a connection refused while engined
// finds its containers.
type Gate struct {
	open    chan struct{}
	once    sync.Once
	handler http.Handler // written once, before open is closed
	within  sync.WaitGroup
}

// NewGate returns a closed gate.
func NewGate() *Gate { return &Gate{open: make(chan struct{})} }

// Open lets all requests, also those that wait, through to handler.
func (g *Gate) Open(handler http.Handler) {
	g.once.Do(func() {
		g.handler = handler
		close(g.open)
	})
}

// Drain waits until no request is within, which a server's Shutdown does not
// do for those that took their connection over. No new ones may come.
func (g *Gate) Drain(ctx context.Context) {
	empty := make(chan struct{})
	go func() {
		defer close(empty)
		g.within.Wait()
	}()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// ServeHTTP waits for Open, or for the client to go away.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.within.Add(1)
	defer g.within.Done()
	select {
	case <-g.open:
		g.handler.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// Stopping answers every request with 503: what waited at the gate of a daemon
// that is told to stop before it was ready.
func Stopping() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, slog.New(slog.DiscardHandler), errdefs.Unavailable.Errorf("the daemon is stopping"))
	})
}
