package supervisor_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSystemdUnit: containers outlive a restart of the service, systemd leaves
// their cgroups alone and waits for the supervisor's word, and the flags in the
// unit are ones that the supervisor has.
func TestSystemdUnit(t *testing.T) {
	if err := buildSupervisor(); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	for entry := range strings.Lines(read(t, "../contrib/systemd/supervisor.service")) {
		if key, value, found := strings.Cut(strings.TrimSpace(entry), "="); found && !strings.HasPrefix(key, "#") {
			settings[key] = value
		}
	}
	for key, want := range map[string]string{"Type": "notify", "KillMode": "process", "Delegate": "yes", "Restart": "always", "RuntimeDirectoryPreserve": "yes"} {
		if settings[key] != want {
			t.Errorf("%s=%s, expected %s", key, settings[key], want)
		}
	}
	command := strings.Fields(settings["ExecStart"])
	bin, err := built()
	if err != nil || len(command) < 2 || filepath.Base(command[0]) != "supervisor" {
		t.Fatalf("ExecStart=%q, %v", command, err)
	}
	if said, err := exec.Command(filepath.Join(bin, "supervisor"), append(command[1:], "--version")...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", command, err, said)
	}
}
