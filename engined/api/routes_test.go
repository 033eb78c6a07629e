package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHeadersOfEveryAnswer(t *testing.T) {
	w := call(t, newServer(nil), "GET /_ping")
	for key, want := range map[string]string{
		"Server": "Engined/test (linux)", "Api-Version": "1.56", "Ostype": "linux", "Docker-Experimental": "false",
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Swarm": "inactive",
	} {
		if got := w.Header().Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if w.Body.String() != "OK" {
		t.Errorf("body %q", w.Body)
	}
	if w := call(t, newServer(nil), "HEAD /_ping"); w.Body.Len() != 0 || w.Code != 200 || w.Header().Get("Api-Version") == "" {
		t.Errorf("HEAD: %d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestVersionsAreLimitedInDockerdsWords(t *testing.T) {
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/v1.23/_ping":                   {400, `{"message":"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}`},
		"/v1.57/_ping":                   {400, `{"message":"client version 1.57 is too new. Maximum supported API version is 1.56"}`},
		"/v2.0/_ping":                    {400, `{"message":"client version 2.0 is too new. Maximum supported API version is 1.56"}`},
		"/v1.24/_ping":                   {200, "OK"},
		"/v1.56/_ping":                   {200, "OK"},
		"//v1.41//_ping":                 {200, "OK"},
		"/vfoo/_ping":                    {404, `{"message":"page not found"}`},
		"/v1.41":                         {404, `{"message":"page not found"}`},
		"/v1.41/nothing":                 {404, `{"message":"page not found"}`},
		"/v99999999999999999999.1/_ping": {404, `{"message":"page not found"}`},
	} {
		w := call(t, newServer(nil), "GET "+path)
		if w.Code != want.status || strings.TrimSpace(w.Body.String()) != want.body {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestWhatIsNotHereSaysSo(t *testing.T) {
	for line, want := range map[string]struct {
		status int
		word   string
	}{
		"PUT /containers/json":             {404, "page not found"},
		"GET /v1.24/system/df":             {404, "page not found"}, // came with 1.25
		"GET /distribution/json":           {404, "page not found"},
		"PUT /containers/x/archive?path=/": {501, "copying files"},
		"GET /swarm":                       {503, `This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.`},
		"GET /v1.41/nodes":                 {503, "This node is not a swarm manager."},
		"DELETE /services/x":               {503, "This node is not a swarm manager."},
	} {
		w := call(t, newServer(nil), line)
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.word) {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
	}
}

func TestNamesWithSlashesBeforeAFixedEnd(t *testing.T) {
	var got []string
	seen := func(what string) handler {
		return func(_ *Server, _ http.ResponseWriter, r *http.Request) error {
			got = append(got, what+" "+r.PathValue("name"))
			return nil
		}
	}
	s, mux := newServer(nil), http.NewServeMux()
	s.register(mux, []route{
		{"GET", "/images/json", seen("list"), 0, false},
		{"GET", "/images/{name...}/json", seen("inspect"), 0, false},
		{"GET", "/images/{name...}/history", seen("history"), 0, false},
		{"DELETE", "/images/{name...}", seen("remove"), 0, false},
	})
	for _, line := range []string{
		"GET /images/json", "GET /images/a/json", "GET /images/127.0.0.1:5000/a/b:tag/json",
		"GET /images/a%2Fb/history", "GET /images/json/json", "DELETE /images/a/b", "GET /images/a/nothing", "DELETE /images/",
	} {
		method, target, _ := strings.Cut(line, " ")
		w := httptest.NewRecorder()
		cut, _ := cutVersion(httptest.NewRequest(method, target, nil))
		mux.ServeHTTP(w, cut)
		if w.Code == 404 {
			got = append(got, "404")
		}
	}
	want := []string{"list ", "inspect a", "inspect 127.0.0.1:5000/a/b:tag", "history a/b", "inspect json", "remove a/b", "404", "404"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestEveryRowHasItsPlaceInTheMux(t *testing.T) {
	seen := make(map[string]bool)
	for _, row := range routes {
		if key := row.method + " " + row.path; seen[key] {
			t.Errorf("%s stands twice in the table", key)
		} else {
			seen[key] = true
		}
	}
	newServer(nil).Handler() // a conflict between patterns panics
}

func TestAPanicIsA500AndTheNextRequestIsServed(t *testing.T) {
	s := newServer(&fakeContainers{start: func(string) error { panic("boom") }})
	if w := call(t, s, "POST /containers/x/start"); w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := call(t, s, "GET /_ping"); w.Code != 200 {
		t.Errorf("afterwards %d", w.Code)
	}
}

func TestRequestsWaitForTheGate(t *testing.T) {
	gate := NewGate()
	done := make(chan int)
	go func() {
		w := httptest.NewRecorder()
		gate.ServeHTTP(w, httptest.NewRequest("GET", "/_ping", nil))
		done <- w.Code
	}()
	select {
	case <-done:
		t.Fatal("passed a closed gate")
	default:
	}
	gate.Open(http.NotFoundHandler())
	if got := <-done; got != 404 {
		t.Errorf("got %d", got)
	}
}
