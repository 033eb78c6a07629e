package plainjson

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func docker(t testing.TB) []byte {
	t.Helper()
	config, err := os.ReadFile("testdata/docker.json")
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestUnmarshalIsEncodingJSONs(t *testing.T) {
	for _, config := range []string{
		string(docker(t)),
		`{}`, ` { } `, `null`,
		`{"process":{"args":[],"env":null,"terminal":true,"user":{"uid":4294967295}}}`,
		`{"annotations":{"a\u00e9\n":"\ud83d\ude00 \ud800 ü","":""},"hostname":"` + "\xff" + `"}`,
		`{"HOSTNAME":"odd case","unknown":{"a":[1,{"b":"}"}]},"mounts":[{"destination":"/a"},null,{}]}`,
		`{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":-1,"weight":10}]}},"sysctl":{}}}`,
		`{"windows":{"credentialSpec":{"any":[1,"x",null]}}}`,
		`{"process":{"oomScoreAdj":-1000,"rlimits":[{"type":"A","hard":18446744073709551615,"soft":0}]}}`,
	} {
		compare(t, []byte(config))
	}
}

// compare reports where the two decoders differ in what they accept.
func compare(t *testing.T, config []byte) {
	t.Helper()
	var ours, theirs specs.Spec
	err, want := Unmarshal(config, &ours), json.Unmarshal(config, &theirs)
	var wrong *Error
	switch {
	case errors.As(err, &wrong) && wrong.Text == twice: // theirs takes the last
	case (err == nil) != (want == nil):
		t.Errorf("%s: %v, encoding/json: %v", config, err, want)
	case err == nil && !reflect.DeepEqual(ours, theirs):
		t.Errorf("%s:\n%+v\nencoding/json:\n%+v", config, ours, theirs)
	}
}

func TestErrorsNameTheField(t *testing.T) {
	for config, want := range map[string]string{
		`[]`: "expected an object, got an array",
		`{"linux":{"resources":{"memory":{"limit":"1"}}}}`:               "linux.resources.memory.limit: expected a number, got a string",
		`{"mounts":[{},{"options":"ro"}]}`:                               "mounts[1].options: expected an array, got a string",
		`{"mounts":[{"options":["ro",7]}]}`:                              "mounts[0].options[1]: expected a string, got a number",
		`{"process":{"args":[7]}}`:                                       "process.args[0]: expected a string, got a number",
		`{"process":{"args":["a","b","c","d",{}]}}`:                      "process.args[4]: expected a string, got an object",
		`{"process":{"terminal":1}}`:                                     "process.terminal: expected a boolean, got a number",
		`{"process":{"user":{"uid":-1}}}`:                                "process.user.uid: expected a whole number that fits uint32, got -1",
		`{"process":{"user":{"gid":1e3}}}`:                               "process.user.gid: expected a whole number that fits uint32, got 1e3",
		`{"linux":{"sysctl":{"a.b":{}}}}`:                                "linux.sysctl.a.b: expected a string, got an object",
		`{"hostname":true}`:                                              "hostname: expected a string, got a boolean",
		`{"process":{"cwd":"/","cwd":"/"}}`:                              "process.cwd: expected once, given twice",
		`{"process":{"cwd":"/","CWD":"/"}}`:                              "process.CWD: expected once, given twice",
		`{"annotations":{"a":"","a":""}}`:                                "annotations.a: expected once, given twice",
		`{"linux":{"rootfsPropagation":"x"},"root":{"path":"a"},"root":`: "unexpected end of JSON input",
		`{"process":{} "root":{}}`:                                       `invalid character '"' after object key:value pair`,
	} {
		err := Unmarshal([]byte(config), new(specs.Spec))
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

func TestWhatItCannotDecodeIsSaid(t *testing.T) {
	var into struct {
		Number float64 `json:"number"`
	}
	if err := Unmarshal([]byte(`{"number":1}`), &into); err == nil || !strings.Contains(err.Error(), "float64") {
		t.Errorf("%v", err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(docker(f))
	f.Add([]byte(`{"process":{"args":["a",null],"user":{"uid":1e1}},"annotations":{"\u0061":"\ud800"}}`))
	f.Add([]byte(`{"process":{"args":[7]}}`))
	f.Add([]byte(`{"windows":{"credentialSpec":[{}]},"linux":{"resources":{"blockIO":{"weightDevice":[{"Major":8}]}}}}`))
	f.Fuzz(compare)
}

func BenchmarkUnmarshal(b *testing.B) {
	config := docker(b)
	for b.Loop() {
		if err := Unmarshal(config, new(specs.Spec)); err != nil {
			b.Fatal(err)
		}
	}
}
