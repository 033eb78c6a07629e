package supervisor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// ServeMetrics answers GET /metrics on listener, and /debug/pprof/ if profiles
// is set, until the supervisor is closed. It owns the listener. A unix socket's
// peers are checked as the API's are.
func (s *Supervisor) ServeMetrics(listener net.Listener, profiles bool) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.answerMetrics)
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	stirring := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.stir()
		mux.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: stirring, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	s.own.Go(func() {
		if err := server.Serve(checkedListener{listener}); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error("serving metrics", "error", err)
		}
	})
	s.own.Go(func() {
		<-s.life.Done()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
}

func (s *Supervisor) answerMetrics(w http.ResponseWriter, _ *http.Request) {
	var text bytes.Buffer
	if err := s.writeMetrics(&text); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(text.Bytes())
}

// checkedListener drops connections of those who may not use the supervisor.
type checkedListener struct{ net.Listener }

// Accept returns the next connection of somebody who may.
func (l checkedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if unixConn, isUnix := conn.(*net.UnixConn); isUnix && checkPeer(unixConn) != nil {
			conn.Close()
			continue
		}
		return conn, nil
	}
}
