package api

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/engined/engined/engined/system"
)

// dockers are the stock command lines of a machine set up for tests: a current
// one and Debian's 20.10.
var dockers = []string{"/usr/local/bin/docker", "/usr/bin/docker"}

// sources are a machine's that has an image and some containers.
type sources struct{}

func (sources) Counts() (running, paused, stopped int) { return 2, 1, 4 }
func (sources) Name() string                           { return "overlay2" }
func (sources) Status() [][2]string                    { return [][2]string{{"Backing Filesystem", "extfs"}} }
func (sources) Version(context.Context) (version, revision string, err error) {
	return "1.2.3", "abcdef", nil
}

func TestStockClientsPrintVersionAndInfo(t *testing.T) {
	described, err := system.Open(system.Settings{Version: "9.8.7", DataRoot: t.TempDir(), Runtime: "/bin/false", LogDriver: "json-file", LogDrivers: []string{"json-file"}},
		system.Sources{Containers: sources{}, Storage: sources{}, Supervisor: sources{}, Images: func(context.Context) (int, error) { return 5, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(nil)
	s.System = described
	socket := onSocket(t, s)
	found := 0
	for _, docker := range dockers {
		if _, err := exec.LookPath(docker); err != nil {
			continue
		}
		found++
		for command, wanted := range map[string][]string{
			"version": {"Server: engined", "Engine:\n  Version:          9.8.7", "(minimum version 1.24)", "supervisor:\n  Version:          1.2.3\n  GitCommit:        abcdef", "ocirun:"},
			"info": {"Server Version: 9.8.7", "Containers: 7", "Running: 2", "Paused: 1", "Stopped: 4", "Images: 5", "Storage Driver: overlay2", "Backing Filesystem: extfs",
				"Swarm: inactive", "Default Runtime: ocirun", "Logging Driver: json-file", "Live Restore Enabled: true", "Kernel Version: "},
		} {
			output, err := exec.Command(docker, "-H", "unix://"+socket, command).CombinedOutput()
			if err != nil {
				t.Errorf("%s %s: %v\n%s", docker, command, err, output)
			}
			for _, want := range wanted {
				if !strings.Contains(string(output), want) {
					t.Errorf("%s %s lacks %q:\n%s", docker, command, want, output)
				}
			}
			if strings.Contains(string(output), "expected:") {
				t.Errorf("%s %s doubts a commit:\n%s", docker, command, output)
			}
		}
	}
	if found == 0 {
		t.Skip("no docker command is installed")
	}
}
