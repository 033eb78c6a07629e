package api

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

// created decodes a create request the way the handler does.
func created(t *testing.T, target, body string) (container.CreateRequest, *httptest.ResponseRecorder) {
	t.Helper()
	var got container.CreateRequest
	s := newServer(&fakeContainers{create: func(request container.CreateRequest) (apicontainer.CreateResponse, error) {
		got = request
		return apicontainer.CreateResponse{ID: "1234"}, nil
	}})
	return got, call(t, s, "POST "+target, body)
}

func TestBadBodiesNameTheField(t *testing.T) {
	for body, want := range map[string]string{
		``:                          "config cannot be empty",
		`{}`:                        "config cannot be empty",
		`{`:                         "unexpected end of JSON input",
		`{"Image":"x"} trailing`:    "invalid character",
		`[]`:                        "body: expected an object, got array",
		`{"Image":5}`:               "JSON: Image: expected a string, got number",
		`{"Image":"x","Tty":"yes"}`: "Tty: expected a boolean, got string",
		`{"Image":"x","Cmd":"sh"}`:  "Cmd: expected an array, got string",
		`{"Image":"x","HostConfig":{"Memory":"1g"}}`:                                "JSON: HostConfig.Memory: expected an integer (int64), got string",
		`{"Image":"x","HostConfig":{"RestartPolicy":{"Name":true}}}`:                "HostConfig.RestartPolicy.Name: expected a string, got bool",
		`{"Image":"x","ExposedPorts":{"99999/tcp":{}}}`:                             "99999",
		`{"Image":"x","HostConfig":{"Dns":["nowhere"]}}`:                            "nowhere",
		`{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind","TmpfsOptions":{}}]}}`: "HostConfig.Mounts[0]",
	} {
		_, w := created(t, "/containers/create", body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", body, w.Code, w.Body, want)
		}
	}
}

func TestOnlyJSONIsTaken(t *testing.T) {
	for contentType, ok := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true,
		"text/plain": false, "": false, "a/b/c": false,
	} {
		r := httptest.NewRequest("POST", "/x", strings.NewReader(`{}`))
		r.Header.Set("Content-Type", contentType)
		err := decodeJSON(httptest.NewRecorder(), r, &struct{}{})
		if (err == nil) != ok || (err != nil && errdefs.KindOf(err) != errdefs.InvalidArgument) {
			t.Errorf("%q: %v", contentType, err)
		}
	}
}

func TestABodyThatDoesNotEndIsRefused(t *testing.T) {
	r := httptest.NewRequest("POST", "/x", strings.NewReader(`"`+strings.Repeat("a", maxBody)+`"`))
	r.Header.Set("Content-Type", "application/json")
	var out string
	if err := decodeJSON(httptest.NewRecorder(), r, &out); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestQueryValues(t *testing.T) {
	q := queryOf(httptest.NewRequest("GET", "/?a=1&b=no&c=TRUE&d=&e=none&n=5&m=1700000000.5&z=0&r=2023-11-14T22:13:20Z", nil))
	for name, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false, "e": false, "missing": false} {
		if q.flag(name) != want {
			t.Errorf("flag %s is %v", name, !want)
		}
	}
	if n := q.integer("n"); n == nil || *n != 5 || q.integer("d") != nil {
		t.Errorf("integer %v", n)
	}
	if at := q.moment("m"); !at.Equal(time.Unix(1700000000, 500000000)) {
		t.Errorf("moment %v", at)
	}
	if at := q.moment("r"); !at.Equal(time.Unix(1700000000, 0)) {
		t.Errorf("moment %v", at)
	}
	if !q.moment("z").IsZero() || !q.moment("missing").IsZero() || q.err != nil {
		t.Errorf("zero moments, %v", q.err)
	}
}

func TestBadQueryValuesNameTheParameter(t *testing.T) {
	for target, want := range map[string]string{
		"GET /containers/json?limit=a":              `parameter limit: expected an integer, got \"a\"`,
		"GET /containers/json?filters=a":            "parameter filters",
		"POST /containers/x/stop?t=a":               "parameter t",
		"POST /containers/x/resize?h=1":             "parameter w",
		"POST /containers/x/resize?h=70000&w=1":     "parameter h",
		"GET /containers/x/logs?stdout=1&since=abc": "parameter since",
		"GET /containers/x/logs":                    "you must choose at least one stream",
		"GET /events?until=abc":                     "parameter until",
		"GET /events?since=5&until=4":               "cannot be after",
		"GET /containers/json?a=%zz":                "malformed query",
		"POST /containers/create?platform=a/b/c/d":  "config cannot be empty",
	} {
		w := call(t, newServer(&fakeContainers{}), target)
		if w.Code != 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestFiltersOfBothShapes(t *testing.T) {
	for given, want := range map[string]string{
		`{"name":["a","b"]}`:  "a b",
		`{"name":{"a":true}}`: "a",
	} {
		q := &query{values: map[string][]string{"filters": {given}}}
		if got := strings.Join(q.filters()["name"], " "); got != want || q.err != nil {
			t.Errorf("%s: %q, %v", given, got, q.err)
		}
	}
}

func TestStartTakesNoConfiguration(t *testing.T) {
	s := newServer(&fakeContainers{start: func(string) error { return nil }})
	for body, want := range map[string]int{"": 204, "{}": 204, "null\n": 204, `{"Binds":["/a:/b"]}`: 400} {
		if w := call(t, s, "POST /containers/x/start", body); w.Code != want {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestNothingStartsAfreshInsteadOfFromACheckpoint(t *testing.T) {
	s := newServer(&fakeContainers{start: func(string) error { return nil }})
	for parameters, want := range map[string]int{"": 204, "?checkpoint=": 204, "?checkpoint=cp1": 501, "?checkpoint-dir=/x": 501} {
		if w := call(t, s, "POST /containers/x/start"+parameters); w.Code != want {
			t.Errorf("%q: %d %s", parameters, w.Code, w.Body)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("v1.24")
	f.Fuzz(func(t *testing.T, element string) {
		if v, ok := parseVersion(element); ok && (v.Major < 0 || v.Minor < 0) {
			t.Errorf("%q is %v", element, v)
		}
	})
}

func FuzzParseMoment(f *testing.F) {
	f.Add("1.5")
	f.Fuzz(func(t *testing.T, given string) {
		_, _ = parseMoment(given) // must not panic
	})
}
