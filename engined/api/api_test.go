package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apisystem "github.com/moby/moby/api/types/system"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/container"
)

// fakeContainers answers what a test sets and is nil, which panics, elsewhere.
type fakeContainers struct {
	containers
	create    func(container.CreateRequest) (apicontainer.CreateResponse, error)
	start     func(ref string) error
	kill      func(ref, signal string) error
	stop      func(container.StopOptions) error
	wait      func(apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error)
	inspect   func(ref string) (apicontainer.InspectResponse, error)
	list      func(container.ListOptions) ([]apicontainer.Summary, error)
	logs      func(ctx context.Context, options container.LogsOptions, w container.LogWriter) error
	attach    func(container.AttachOptions, container.Upgrade) error
	execStart func(container.ExecStartOptions, container.Upgrade) error
	commit    func(ref string, request container.CommitRequest) (digest.Digest, error)
}

func (f *fakeContainers) Create(_ context.Context, request container.CreateRequest) (apicontainer.CreateResponse, error) {
	return f.create(request)
}
func (f *fakeContainers) Start(_ context.Context, ref string) error { return f.start(ref) }
func (f *fakeContainers) Kill(_ context.Context, ref, signal string) error {
	return f.kill(ref, signal)
}
func (f *fakeContainers) Stop(_ context.Context, _ string, options container.StopOptions) error {
	return f.stop(options)
}
func (f *fakeContainers) Wait(_ context.Context, _ string, condition apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error) {
	return f.wait(condition)
}
func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (apicontainer.InspectResponse, error) {
	return f.inspect(ref)
}
func (f *fakeContainers) List(_ context.Context, options container.ListOptions) ([]apicontainer.Summary, error) {
	return f.list(options)
}
func (f *fakeContainers) Logs(ctx context.Context, _ string, options container.LogsOptions, w container.LogWriter) error {
	return f.logs(ctx, options, w)
}
func (f *fakeContainers) Attach(_ context.Context, _ string, options container.AttachOptions, upgrade container.Upgrade) error {
	return f.attach(options, upgrade)
}
func (f *fakeContainers) ExecStart(_ context.Context, _ string, options container.ExecStartOptions, upgrade container.Upgrade) error {
	return f.execStart(options, upgrade)
}

type fakeDaemon struct{}

func (fakeDaemon) Version(context.Context) (apisystem.VersionResponse, error) {
	return apisystem.VersionResponse{Version: "1.2.3", Os: "linux", Components: []apisystem.ComponentVersion{
		{Name: "Engine", Version: "1.2.3", Details: map[string]string{}},
	}}, nil
}
func (fakeDaemon) Info(context.Context) (apisystem.Info, error) {
	return apisystem.Info{Name: "host", RuncCommit: apisystem.Commit{ID: "v9"}}, nil
}

type fakeEvents []apievents.Message

func (f fakeEvents) Subscribe(_ context.Context, _, _ time.Time, match func(apievents.Message) bool) (<-chan apievents.Message, error) {
	messages := make(chan apievents.Message, len(f))
	for _, m := range f {
		if match(m) {
			messages <- m
		}
	}
	close(messages)
	return messages, nil
}

func newServer(c *fakeContainers) *Server {
	return &Server{Containers: c, System: fakeDaemon{}, Events: fakeEvents{}, Agent: "Engined/test (linux)",
		Log: slog.New(slog.DiscardHandler), Closing: make(chan struct{})}
}

// call makes a request of the form "METHOD PATH" with an optional JSON body.
func call(t *testing.T, s *Server, line string, body ...string) *httptest.ResponseRecorder {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, target, strings.NewReader(strings.Join(body, "")))
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// onSocket serves s on a real unix socket, which connections can be taken from.
func onSocket(t *testing.T, s *Server) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.Handler()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return path
}

// raw writes a request to a socket as it is and returns the connection.
func raw(t *testing.T, path, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	return conn
}

func readAll(t *testing.T, conn net.Conn) string {
	t.Helper()
	content, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
