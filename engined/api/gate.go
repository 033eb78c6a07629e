package api

import (
	"net/http"
	"sync"
)

// Gate is a handler whose requests wait until it is opened: listeners accept
// from the first moment on, and nobody sees a connection refused while engined
// finds its containers.
type Gate struct {
	open    chan struct{}
	once    sync.Once
	handler http.Handler // written once, before open is closed
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

// ServeHTTP waits for Open, or for the client to go away.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-g.open:
		g.handler.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}
