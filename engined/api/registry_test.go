package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
	apiregistry "github.com/moby/moby/api/types/registry"

	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/registry"
	"github.com/engined/engined/proto/errdefs"
)

// withAuth calls with credentials in the header.
func withAuth(t *testing.T, s *Server, line, credentials string) *httptest.ResponseRecorder {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set(apiregistry.AuthHeader, base64.URLEncoding.EncodeToString([]byte(credentials)))
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestPullPassesEverythingOn(t *testing.T) {
	s := newServer(nil)
	var got image.PullRequest
	s.Images = &fakeImages{pull: func(req image.PullRequest, report image.Report) error {
		got = req
		report(jsonstream.Message{Status: "Pulling"})
		return errdefs.NotFound.Errorf("gone")
	}}
	w := withAuth(t, s, "POST /images/create?fromImage=a/b&tag=1&platform=linux/arm64", `{"username":"u","password":"p"}`)
	if got.Image != "a/b" || got.Tag != "1" || got.Platform == nil || got.Platform.Architecture != "arm64" || got.Auth.Username != "u" || got.Auth.Password != "p" {
		t.Errorf("%+v", got)
	}
	if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, `"status":"Pulling"`) || !strings.Contains(body, `"error":"gone"`) {
		t.Errorf("%d %s", w.Code, body)
	}
}

func TestAPullThatDoesNotBeginHasAStatus(t *testing.T) {
	s := newServer(nil)
	s.Images = &fakeImages{pull: func(req image.PullRequest, _ image.Report) error {
		if req.Auth != (registry.Auth{}) {
			t.Error("credentials out of nothing")
		}
		return errdefs.NotFound.Errorf("manifest for a not found")
	}}
	if w := withAuth(t, s, "POST /images/create?fromImage=a", "no JSON"); w.Code != http.StatusNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestPushPassesEverythingOn(t *testing.T) {
	s := newServer(nil)
	var got image.PushRequest
	s.Images = &fakeImages{push: func(req image.PushRequest, _ image.Report) error { got = req; return nil }}
	w := withAuth(t, s, "POST /images/host:5000/a/b/push?tag=1", `{"identitytoken":"x"}`)
	if w.Code != http.StatusOK || got.Image != "host:5000/a/b" || got.Tag != "1" || got.Auth.IdentityToken != "x" {
		t.Errorf("%d %s: %+v", w.Code, w.Body, got)
	}
}

type fakeRegistries struct {
	login  func(registry.Auth) error
	search func(registry.SearchRequest) []apiregistry.SearchResult
}

func (f *fakeRegistries) Login(_ context.Context, auth registry.Auth) error { return f.login(auth) }
func (f *fakeRegistries) Search(_ context.Context, req registry.SearchRequest) ([]apiregistry.SearchResult, error) {
	return f.search(req), nil
}

func TestLogin(t *testing.T) {
	s := newServer(nil)
	s.Registries = &fakeRegistries{login: func(auth registry.Auth) error {
		if auth.Password != "right" {
			return errdefs.Unauthenticated.Errorf("no")
		}
		return nil
	}}
	for password, status := range map[string]int{"right": http.StatusOK, "wrong": http.StatusUnauthorized} {
		w := call(t, s, "POST /auth", `{"username":"u","password":"`+password+`","serveraddress":"r"}`)
		if w.Code != status || status == http.StatusOK && !strings.Contains(w.Body.String(), `"Status":"Login Succeeded"`) {
			t.Errorf("%s: %d %s", password, w.Code, w.Body)
		}
	}
}

func TestSearchPassesFiltersOn(t *testing.T) {
	s := newServer(nil)
	s.Registries = &fakeRegistries{search: func(req registry.SearchRequest) []apiregistry.SearchResult {
		if req.Term != "x" || req.Limit != 3 || req.Stars != 7 || req.Official == nil || !*req.Official {
			t.Errorf("%+v", req)
		}
		return []apiregistry.SearchResult{{Name: "x"}}
	}}
	w := call(t, s, `GET /images/search?term=x&limit=3&filters={"stars":{"7":true},"is-official":{"true":true}}`, "")
	var found []apiregistry.SearchResult
	if err := json.Unmarshal(w.Body.Bytes(), &found); err != nil || len(found) != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := call(t, s, `GET /images/search?term=x&filters={"stars":{"many":true}}`, ""); w.Code != http.StatusBadRequest {
		t.Errorf("a bad filter: %d %s", w.Code, w.Body)
	}
}
