package libcontainer

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
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
		if got := string(member([]byte(c.data), "a", "b")); got != c.want {
			t.Errorf("%s: got %q, want %q", c.data, got, c.want)
		}
	}
}

func TestEarlyAgreesWithTheSpec(t *testing.T) {
	spec := baseSpec()
	spec.Process.Terminal, spec.Linux.CgroupsPath = true, `/a"b`
	config, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	e, ok := readEarly(config)
	if !ok || !e.agrees(spec) {
		t.Errorf("got %+v %v", e, ok)
	}
	spec.Process.Terminal = false
	if e.agrees(spec) {
		t.Error("agrees about the terminal")
	}
	spec = baseSpec()
	spec.Linux.Namespaces[0].Type = specs.UserNamespace
	config, _ = json.Marshal(spec)
	if _, ok := readEarly(config); ok {
		t.Error("a user namespace needs its maps first")
	}
}

// FuzzMember: whatever the decoder accepts is cut out as the decoder sees it.
func FuzzMember(f *testing.F) {
	config, _ := json.Marshal(baseSpec())
	f.Add(config)
	f.Add([]byte(`{"linux":{"namespaces":[{"type":"pid"}]},"process":{"terminal":true}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := member(data, "linux", "namespaces")
		if raw != nil && json.Valid(data) && !json.Valid(raw) {
			t.Errorf("%q was cut out of %q", raw, data)
		}
	})
}
