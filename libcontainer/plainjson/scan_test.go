package plainjson

import (
	"encoding/json"
	"testing"
)

func TestMember(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{`{"a":{"b":1}}`, "1"},
		{` { "x" : [ {"a":"}]"}, "\"" ] , "a" : { "z":"\\", "b" : [1, {"c":2}] } }`, `[1, {"c":2}]`},
		{`{"a":{"b":"x\"y"}}`, `"x\"y"`},
		{`{"a":{"b":true}`, "true"}, // what follows is the decoder's business
		{`{"a":{}}`, ""},
		{`{"b":1}`, ""},
		{`{"a":{"b":`, ""},
		{`{"a"`, ""},
		{`{"a":{"b":"open`, ""},
		{`{"a":{"c":1 "b":2}}`, ""},
		{`{,"a":{"b":1}}`, ""},
		{`[]`, ""},
		{``, ""},
	} {
		if got := string(Member([]byte(c.data), "a", "b")); got != c.want {
			t.Errorf("%s: got %q, want %q", c.data, got, c.want)
		}
	}
}

// FuzzMember: whatever the decoder accepts is cut out as the decoder sees it.
func FuzzMember(f *testing.F) {
	f.Add([]byte(`{"linux":{"namespaces":[{"type":"pid"}]},"process":{"terminal":true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := Member(data, "linux", "namespaces")
		if raw != nil && json.Valid(data) && !json.Valid(raw) {
			t.Errorf("%q was cut out of %q", raw, data)
		}
	})
}
