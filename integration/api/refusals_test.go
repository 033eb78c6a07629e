package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

// request is one line of the table.
type request struct {
	method, path, body string
	status             int
	differs            string // why dockerd 20.10 says something else
}

// later is why dockerd 20.10 disagrees where it blames itself, with status 500,
// for what the client did wrong; later releases answer 400 too.
const later = "dockerd 20.10 answers 500"

// newer is why the words differ where later releases of dockerd have others, or
// where the standard library's text is no answer to a client.
const newer = "same status in other words"

// Containers "running" and "stopped" are there; "orphan" and "waiting" can be
// made and not started. Two whose ids begin alike
// are made by nobody: an ambiguous prefix is tried apart.
var requests = []request{
	{"POST", "/containers/create", `{"Image": "no-such-image"}`, 404, ""},
	{"POST", "/containers/create", `{"Image": "no-such-image:tag@sha256:12"}`, 400, newer},
	{"POST", "/containers/create", `{"Image": "UPPER"}`, 400, newer},
	{"POST", "/containers/create", `{`, 400, later},
	{"POST", "/containers/create", `[]`, 400, later},
	{"POST", "/containers/create", ``, 400, later},
	{"POST", "/containers/create", `{"Image": 5}`, 400, later},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"Memory": "much"}}`, 400, later},
	{"POST", "/containers/create", `{"Image": "busybox", "Env": "A=b"}`, 400, later},
	{"POST", "/containers/create", `{"Image": "busybox", "WorkingDir": "relative"}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "StopSignal": "NOSUCH"}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "Env": ["=x"]}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"Memory": 1}}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"NanoCpus": 9000000000000}}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"Binds": ["nonsense"]}}`, 400, later},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"Binds": ["/a:/b:nonsense"]}}`, 400, later},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}`, 400, newer},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "always"}, "AutoRemove": true}}`, 400, ""},
	{"POST", "/containers/create?name=running", `{"Image": "busybox"}`, 409, ""},
	{"POST", "/containers/create?name=not%20a%20name", `{"Image": "busybox"}`, 400, ""},
	{"POST", "/containers/create", `{"Image": "busybox", "HostConfig": {"NetworkMode": "container:"}}`, 400, ""},
	{"POST", "/containers/create?name=orphan", `{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "container:none"}}`, 201, ""},
	{"POST", "/containers/orphan/start", "", 404, ""},
	{"POST", "/containers/create?name=waiting", `{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "container:stopped"}}`, 201, ""},
	{"POST", "/containers/waiting/start", "", 409, ""},
	{"GET", "/containers/none/json", "", 404, ""},
	{"GET", "/containers/none/logs?stdout=1", "", 404, ""},
	{"GET", "/containers/running/logs", "", 400, ""},
	{"GET", "/containers/none/top", "", 404, ""},
	{"GET", "/containers/stopped/top", "", 409, ""},
	{"GET", "/containers/json?filters=nonsense", "", 400, later},
	{"GET", "/containers/json?filters=%7B%22nonsense%22%3A%5B%22x%22%5D%7D", "", 400, ""},
	{"GET", "/containers/json?limit=many", "", 400, later},
	{"POST", "/containers/none/start", "", 404, ""},
	{"POST", "/containers/running/start", "", 304, ""},
	{"POST", "/containers/stopped/start?checkpoint=cp1", "", 501, "dockerd wants an experimental mode for it"},
	{"POST", "/containers/none/stop", "", 404, ""},
	{"POST", "/containers/stopped/stop", "", 304, ""},
	{"POST", "/containers/none/kill", "", 404, ""},
	{"POST", "/containers/stopped/kill", "", 409, ""},
	{"POST", "/containers/running/kill?signal=NOSUCH", "", 400, ""},
	{"POST", "/containers/none/wait", "", 404, ""},
	{"POST", "/containers/none/attach?stream=1", "", 404, ""},
	{"POST", "/containers/none/resize?h=1&w=1", "", 404, ""},
	{"POST", "/containers/running/resize?h=x&w=1", "", 400, newer},
	{"POST", "/containers/stopped/resize?h=1&w=1", "", 409, ""},
	{"POST", "/containers/none/rename?name=other", "", 404, ""},
	{"POST", "/containers/stopped/rename?name=running", "", 409, newer},
	{"POST", "/containers/stopped/rename?name=", "", 400, ""},
	{"POST", "/containers/none/pause", "", 404, ""},
	{"POST", "/containers/stopped/pause", "", 409, ""},
	{"POST", "/containers/running/unpause", "", 409, later},
	{"POST", "/containers/none/exec", `{"Cmd": ["true"]}`, 404, ""},
	{"POST", "/containers/running/exec", `{}`, 400, ""},
	{"POST", "/containers/running/exec", `{"Cmd": "true"}`, 400, newer},
	{"POST", "/containers/stopped/exec", `{"Cmd": ["true"]}`, 409, ""},
	{"POST", "/exec/none/start", `{}`, 404, ""},
	{"GET", "/exec/none/json", "", 404, ""},
	{"DELETE", "/containers/none", "", 404, ""},
	{"DELETE", "/containers/running", "", 409, newer},
	{"GET", "/images/none/json", "", 404, newer},
	{"GET", "/images/UPPER/json", "", 400, newer},
	{"DELETE", "/images/none", "", 404, ""},
	{"POST", "/images/none/tag?repo=x", "", 404, ""},
	{"POST", "/images/busybox/tag?repo=UPPER", "", 400, later},
	{"GET", "/networks/none-such", "", 404, ""},
	{"GET", "/no/such/thing", "", 404, ""},
	{"GET", "/v1.99/version", "", 400, "the newest version is another"},
	{"GET", "/v1.2/version", "", 400, "the oldest version is another"},
	{"GET", "/v1.24/containers/none/json", "", 404, ""},
	{"GET", "/v1.41/containers/none/json", "", 404, ""},
}

// caller sends requests to one engine.
type caller struct {
	t      *testing.T
	client http.Client
}

func callerOf(t *testing.T, socket string) *caller {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	transport := &http.Transport{DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t, http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

func (c *caller) call(method, path, body string) (status int, message string) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://engine"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := c.client.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer.StatusCode, string(text)
}

// must is a call that has to succeed; it decodes the answer.
func (c *caller) must(method, path, body string, into any) {
	c.t.Helper()
	status, text := c.call(method, path, body)
	if status >= 300 {
		c.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			c.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
}

// furnish makes the containers that the table speaks of.
func (c *caller) furnish() {
	c.t.Helper()
	for _, name := range []string{"running", "stopped"} {
		c.must("POST", "/containers/create?name="+name, `{"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}`, nil)
	}
	c.must("POST", "/containers/running/start", "", nil)
}

var anyID = regexp.MustCompile(`[0-9a-f]{64}`)

// message of an error answer, ids replaced.
func message(text string) string {
	var answer struct{ Message string }
	if json.Unmarshal([]byte(text), &answer) == nil && answer.Message != "" {
		text = answer.Message
	}
	return strings.TrimSpace(anyID.ReplaceAllString(text, "ID"))
}

func TestRefusalsAreDockers(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	engined := callerOf(t, stack.Socket)
	engined.furnish()
	var dockerd *caller
	t.Run("reference", func(r *testing.T) {
		reference := harness.NewReference(t, r)
		dockerd = callerOf(t, reference.Socket)
		dockerd.furnish()
	})
	for _, r := range requests {
		t.Run(fmt.Sprintf("%s %s %s", r.method, r.path, r.body), func(t *testing.T) {
			engined.t = t
			status, text := engined.call(r.method, r.path, r.body)
			if status != r.status {
				t.Errorf("status %d, want %d: %s", status, r.status, text)
			}
			if status >= 400 && !strings.Contains(text, `"message":`) {
				t.Errorf("no message: %q", text)
			}
			if dockerd != nil {
				dockerd.t = t
				agree(t, r, status, text, dockerd)
			}
		})
	}
}

func agree(t *testing.T, r request, status int, text string, dockerd *caller) {
	t.Helper()
	theirStatus, theirText := dockerd.call(r.method, r.path, r.body)
	same := status == theirStatus && strings.EqualFold(message(text), message(theirText))
	if !same && r.differs == "" {
		t.Errorf("engined: %d %s\ndockerd: %d %s", status, message(text), theirStatus, message(theirText))
	}
	if same && r.differs != "" {
		t.Errorf("no longer differs; take the reason away: %s", r.differs)
	}
}

// TestAmbiguousPrefix makes containers until two ids begin alike.
func TestAmbiguousPrefix(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	c := callerOf(t, stack.Socket)
	seen := map[byte]bool{}
	for {
		var created struct{ ID string }
		c.must("POST", "/containers/create", `{"Image": "busybox"}`, &created)
		first := created.ID[0]
		if !seen[first] {
			seen[first] = true
			continue
		}
		status, text := c.call("GET", "/containers/"+string(first)+"/json", "")
		if status < 400 || !strings.Contains(text, string(first)) {
			t.Errorf("%d %s", status, text)
		}
		return
	}
}

func TestGoodAnswersHaveDockersShape(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	c := callerOf(t, stack.Socket)
	c.furnish()
	for _, version := range []string{"", "/v1.24", "/v1.41"} {
		var list []struct{ Names []string }
		c.must("GET", version+"/containers/json", "", &list)
		if len(list) != 1 || len(list[0].Names) != 1 || list[0].Names[0] != "/running" {
			t.Errorf("%s/containers/json: %+v", version, list)
		}
		var inspected struct {
			ID, Name string
			State    struct {
				Running bool
				Pid     int
			}
		}
		c.must("GET", version+"/containers/running/json", "", &inspected)
		if len(inspected.ID) != 64 || inspected.Name != "/running" || !inspected.State.Running || inspected.State.Pid <= 0 {
			t.Errorf("%s/containers/running/json: %+v", version, inspected)
		}
		var about struct{ Version, ApiVersion, MinAPIVersion, Os, Arch string }
		c.must("GET", version+"/version", "", &about)
		if about.ApiVersion == "" || about.Os != "linux" || about.Version == "" {
			t.Errorf("%s/version: %+v", version, about)
		}
		var info struct{ Containers, ContainersRunning, ContainersStopped, Images int }
		c.must("GET", version+"/info", "", &info)
		if info.Containers != 2 || info.ContainersRunning != 1 || info.Images != 1 {
			t.Errorf("%s/info: %+v", version, info)
		}
	}
}
