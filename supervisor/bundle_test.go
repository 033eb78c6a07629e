package supervisor

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzProcessOf: of what is JSON the process is what a decoder of the whole finds,
// but that the first of two members counts and case does.
func FuzzProcessOf(f *testing.F) {
	if docker, err := os.ReadFile("../integration/bundle/docker.json"); err == nil {
		f.Add(docker)
	}
	for _, text := range []string{`{"process":{"args":["a,b}","\"]"],"user":{"uid":1}}}`, `{"Process":{"cwd":"/"}}`, `{"a":[[{}],"\\"],"process":null}`, `{"process":5}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := processOf(data)
		var whole struct {
			Process *specs.Process `json:"process"`
		}
		var names map[string]json.RawMessage
		if json.Unmarshal(data, &names) != nil || duplicated(data, len(names)) {
			return
		}
		wanted := json.Unmarshal(data, &whole)
		if (err == nil) != (wanted == nil) || err == nil && !reflect.DeepEqual(got, whole.Process) {
			t.Errorf("%q: %+v, %v; the whole has %+v, %v", data, got, err, whole.Process, wanted)
		}
	})
}

// duplicated reports whether an object has more members than names, or one whose
// name is process but for its case.
func duplicated(data []byte, names int) bool {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.Token()
	members := 0
	for decoder.More() {
		key, _ := decoder.Token()
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return true
		}
		if name, _ := key.(string); name != "process" && strings.EqualFold(name, "process") {
			return true
		}
		members++
	}
	return members != names
}
