package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/engined/engined/proto/errdefs"
)

// maxBody bounds a JSON body. The largest real ones, a create with thousands
// of environment variables, are far below.
const maxBody = 8 << 20

// decodeJSON reads a request's JSON body into out. An empty body is no error
// and leaves out alone, as in dockerd; whoever needs something says so.
func decodeJSON(w http.ResponseWriter, r *http.Request, out any) error {
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	if err := checkContentType(r.Header.Get("Content-Type")); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return errdefs.InvalidArgument.Errorf("reading the request's body: %w", err)
	}
	return decodeBytes(body, out)
}

func decodeBytes(body []byte, out any) error {
	if err := json.Unmarshal(body, out); err != nil {
		return errdefs.InvalidArgument.Errorf("invalid JSON: %w", wordJSON(err, out))
	}
	return nil
}

// wordJSON names field, expected and got where encoding/json knows them.
func wordJSON(err error, out any) error {
	var wrongType *json.UnmarshalTypeError
	if !errors.As(err, &wrongType) {
		return err
	}
	field := visible(reflect.TypeOf(out), wrongType.Field)
	if field == "" {
		field = "body"
	}
	return fmt.Errorf("%s: expected %s, got %s", field, jsonName(wrongType.Type), wrongType.Value)
}

// visible drops the names of embedded structs from a field's path, which the
// sender of the JSON cannot know.
func visible(t reflect.Type, field string) string {
	var names []string
	for name := range strings.SplitSeq(field, ".") {
		for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map) {
			t = t.Elem()
		}
		if t == nil || t.Kind() != reflect.Struct {
			names = append(names, name)
			continue
		}
		found, ok := t.FieldByName(name)
		if !ok || !found.Anonymous {
			names = append(names, name)
		}
		if t = nil; ok {
			t = found.Type
		}
	}
	return strings.Join(names, ".")
}

// jsonName says in JSON's words what a Go type is written as.
func jsonName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "a boolean"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Pointer:
		return jsonName(t.Elem())
	}
	return "an integer (" + t.Kind().String() + ")"
}

func checkContentType(header string) error {
	if header == "" {
		return errdefs.InvalidArgument.Errorf("unsupported Content-Type header (%s): must be 'application/json'", header)
	}
	mediaType, _, err := mime.ParseMediaType(header)
	if err != nil {
		return errdefs.InvalidArgument.Errorf("malformed Content-Type header (%s): %w", header, err)
	}
	if mediaType != "application/json" {
		return errdefs.InvalidArgument.Errorf("unsupported Content-Type header (%s): must be 'application/json'", header)
	}
	return nil
}

// query reads a request's parameters and keeps the first complaint.
type query struct {
	values url.Values
	err    error
}

func queryOf(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		err = errdefs.InvalidArgument.Errorf("malformed query: %w", err)
	}
	return &query{values: values, err: err}
}

func (q *query) fail(name, got, expected string) {
	if q.err == nil {
		q.err = errdefs.InvalidArgument.Errorf("parameter %s: expected %s, got %q", name, expected, got)
	}
}

func (q *query) text(name string) string { return q.values.Get(name) }

// flag reads a boolean with Docker's rule: whatever does not say no is a yes.
func (q *query) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(q.values.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default for a parameter that is not there.
func (q *query) flagOr(name string, missing bool) bool {
	if !q.values.Has(name) {
		return missing
	}
	return q.flag(name)
}

// integer reads a number; nil if the parameter is missing or empty.
func (q *query) integer(name string) *int {
	given := q.values.Get(name)
	if given == "" {
		return nil
	}
	number, err := strconv.Atoi(given)
	if err != nil {
		q.fail(name, given, "an integer")
		return nil
	}
	return &number
}

// size reads one side of a terminal, which must be there.
func (q *query) size(name string) uint16 {
	given := q.values.Get(name)
	number, err := strconv.ParseUint(given, 10, 16)
	if err != nil {
		q.fail(name, given, "an integer from 0 to 65535")
	}
	return uint16(number)
}

// moment reads SECONDS[.NANOSECONDS] since 1970, which is what clients send
// whatever their user typed; zero if missing, empty or 0.
func (q *query) moment(name string) time.Time {
	given := q.values.Get(name)
	if given == "" || given == "0" {
		return time.Time{}
	}
	at, err := parseMoment(given)
	if err != nil {
		q.fail(name, given, "seconds[.nanoseconds] since 1970 or an RFC 3339 time")
	}
	return at
}

func parseMoment(given string) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, given); err == nil {
		return at, nil
	}
	whole, fraction, _ := strings.Cut(given, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	nanoseconds, err := strconv.ParseUint("0"+fraction+strings.Repeat("0", 9-len(fraction)), 10, 32)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(seconds, int64(nanoseconds)), nil
}

// filters reads the parameter of that name: {"key":["value"]}, or, from
// clients before 1.22's types, {"key":{"value":true}}.
func (q *query) filters() map[string][]string {
	given := q.values.Get("filters")
	if given == "" {
		return nil
	}
	found := make(map[string][]string)
	var lists map[string][]string
	if err := json.Unmarshal([]byte(given), &lists); err == nil {
		for key, values := range lists {
			found[key] = values
		}
		return found
	}
	var sets map[string]map[string]bool
	if err := json.Unmarshal([]byte(given), &sets); err != nil {
		q.fail("filters", given, `JSON like {"name":["value"]} or {"name":{"value":true}}`)
		return nil
	}
	for key, values := range sets {
		for value := range values {
			found[key] = append(found[key], value)
		}
	}
	return found
}

// unescapePath is url.PathUnescape under a name that says what for.
func unescapePath(escaped string) (string, error) { return url.PathUnescape(escaped) }
