package api

import (
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// TestOldClientsCreateAndStart leaves out what a client of each version may.
func TestOldClientsCreateAndStart(t *testing.T) {
	stack := harness.New(t, harness.Options{})
	c := callerOf(t, stack.Socket)
	for version, cgroupns := range map[string]string{"/v1.24": "host", "/v1.39": "host", "/v1.40": "host", "/v1.41": ""} {
		var created struct{ ID string }
		c.must("POST", version+"/containers/create", `{"Image": "busybox", "Cmd": ["sleep", "1000"]}`, &created)
		c.must("POST", version+"/containers/"+created.ID+"/start", "", nil)
		var found struct {
			State      struct{ Running bool }
			HostConfig struct {
				IpcMode, CgroupnsMode string
				ShmSize               int64
			}
		}
		c.must("GET", version+"/containers/"+created.ID+"/json", "", &found)
		if h := found.HostConfig; !found.State.Running || h.IpcMode != "private" || h.ShmSize != 64<<20 || cgroupns != "" && h.CgroupnsMode != cgroupns {
			t.Errorf("%s: %+v", version, found)
		}
		status, text := c.call("POST", version+"/containers/create", `{"Image": "busybox", "HostConfig": {"IpcMode": "shareable"}}`)
		if status != 501 || !strings.Contains(text, "shareable IPC namespaces") {
			t.Errorf("%s: asked to share: %d %s", version, status, text)
		}
	}
}
