package libcontainer

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

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
