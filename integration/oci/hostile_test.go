package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
)

// CVE-2022-29162: `exec --cap` gave its process inheritable capabilities, which
// a file's own may turn into more than the bounding set's user was meant to
// have. The first process is given them outright and shows that the look finds
// them.
func TestExecCapabilitiesAreNotInheritable(t *testing.T) {
	ocirun, _, dir := runtimes(t)
	id := filepath.Base(dir) + "-caps"
	spec := bundle.Plain(id)
	shell("while :; do sleep 1; done")(spec)
	spec.Process.Capabilities.Ambient = nil
	here := filepath.Join(dir, id)
	must(t, bundle.Make(here, spec))
	t.Cleanup(func() {
		if out, err := ocirun.Call(here, "delete", "--force", id); err != nil || out.Status != 0 {
			t.Errorf("%v %+v", err, out)
		}
	})
	if out := callWithID(t, ocirun, here, id, []string{"run", "-d", "ID"}); out.Status != 0 {
		t.Fatalf("%+v", out)
	}
	naive := *spec.Process
	one := []string{"CAP_NET_RAW"}
	naive.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one, Inheritable: one}
	naive.Args = []string{"/bin/grep", "CapInh", "/proc/self/status"}
	data, err := json.Marshal(naive)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(here, "process.json"), data, 0o644))
	inheritable := func(args ...string) string {
		out := callWithID(t, ocirun, here, id, append([]string{"exec"}, args...))
		if out.Status != 0 {
			t.Fatalf("%+v", out)
		}
		return strings.Fields(out.Stdout)[1]
	}
	if got := inheritable("--process", "process.json", "ID"); got != "0000000000002000" {
		t.Errorf("the naive process has %s", got)
	}
	if got := inheritable("--cap", "CAP_NET_RAW", "ID", "/bin/grep", "CapInh", "/proc/self/status"); strings.Trim(got, "0") != "" {
		t.Errorf("exec --cap gives the inheritable capabilities %s", got)
	}
}
