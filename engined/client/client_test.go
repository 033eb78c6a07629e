package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func TestOptionsAreReadAsDockerReadsThem(t *testing.T) {
	for given, want := range map[string]string{
		"-it busybox sh -c x":             "i=true t=true name= env=[] rest=busybox sh -c x",
		"-i -t --name a busybox":          "i=true t=true name=a env=[] rest=busybox",
		"--name=a -eA=1 -e B=2 busybox":   "i=false t=false name=a env=[A=1 B=2] rest=busybox",
		"-ite A=1 busybox":                "i=true t=true name= env=[A=1] rest=busybox",
		"-e=A=1 busybox -e C=3":           "i=false t=false name= env=[A=1] rest=busybox -e C=3",
		"--interactive=false -- -busybox": "i=false t=false name= env=[] rest=-busybox",
		"busybox -":                       "i=false t=false name= env=[] rest=busybox -",
	} {
		var i, tty bool
		var name string
		var env []string
		f := newFlags(command{name: "run"})
		f.truth(&i, "interactive", "i", "")
		f.truth(&tty, "tty", "t", "")
		f.text(&name, "name", "", "")
		f.list(&env, "env", "e", "")
		rest, err := f.parse(strings.Fields(given), 1, -1)
		got := fmt.Sprintf("i=%v t=%v name=%s env=%v rest=%s", i, tty, name, env, strings.Join(rest, " "))
		if got != want || err != nil {
			t.Errorf("%s: %s (%v)", given, got, err)
		}
	}
}

func TestWrongOptionsAreNamed(t *testing.T) {
	for given, want := range map[string]string{
		"--bogus x":     "unknown flag: --bogus",
		"-x y":          "unknown shorthand flag: -x",
		"--name":        "flag needs an argument: --name",
		"-n":            "unknown shorthand flag: -n",
		"--tty=maybe x": "--tty",
		"":              "takes other arguments",
	} {
		var tty bool
		var name string
		f := newFlags(command{name: "run"})
		f.truth(&tty, "tty", "t", "")
		f.text(&name, "name", "", "")
		if _, err := f.parse(strings.Fields(given), 1, -1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", given, err)
		}
	}
}

func TestKeysThatDetachEndTheInputAndOthersPass(t *testing.T) {
	keys, err := parseKeys(defaultDetachKeys)
	if err != nil || string(keys) != "\x10\x11" {
		t.Fatalf("%q %v", keys, err)
	}
	for given, want := range map[string]struct {
		passed string
		end    error
	}{
		"abc":               {"abc", nil},
		"a\x10b":            {"a\x10b", nil},
		"a\x10\x10\x11b":    {"a\x10", errDetached},
		"\x10\x11":          {"", errDetached},
		"x\x10":             {"x\x10", nil},
		"\x11\x10b\x10\x11": {"\x11\x10b", errDetached},
	} {
		for name, in := range map[string]io.Reader{"at once": strings.NewReader(given), "byte by byte": iotest.OneByteReader(strings.NewReader(given))} {
			got, err := io.ReadAll(&detacher{in: in, keys: keys})
			if string(got) != want.passed || !errors.Is(err, want.end) {
				t.Errorf("%q %s: %q %v", given, name, got, err)
			}
		}
	}
	for _, wrong := range []string{"", "ctrl-", "foo", "ctrl-1", "a,"} {
		if _, err := parseKeys(wrong); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

func TestSettingsBecomeARequest(t *testing.T) {
	var o runOptions
	f := newFlags(command{name: "run"})
	o.define(f)
	rest, err := f.parse(strings.Fields("-m 64m --cpus 1.5 --pids-limit 5 --memory-swap -1 --restart on-failure:3 --tmpfs /t:size=1m --net none -v /a:/b --ulimit nofile=5:6 --device /dev/x --dns 1.1.1.1 --label a=b x cmd arg"), 1, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.request(rest[0], rest[1:])
	if err != nil {
		t.Fatal(err)
	}
	h := got.HostConfig
	text := fmt.Sprintln(h.Memory, h.NanoCPUs, *h.PidsLimit, h.MemorySwap, h.RestartPolicy, h.Tmpfs, h.NetworkMode, h.Binds, h.Ulimits, h.Devices, h.DNS, got.Config.Labels, got.Config.Cmd)
	want := "67108864 1500000000 5 -1 {on-failure 3} map[/t:size=1m] none [/a:/b] [nofile=5:6] [{/dev/x /dev/x rwm}] [1.1.1.1] map[a:b] [cmd arg]\n"
	if text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	for _, given := range []string{"-m many", "--cpus x", "--pids-limit x", "--restart always:x", "--dns here", "--device a:b:c:d", "--ulimit x", "--cpu-shares x"} {
		var o runOptions
		f := newFlags(command{name: "run"})
		o.define(f)
		rest, err := f.parse(strings.Fields(given+" image"), 1, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.request(rest[0], nil); err == nil || !strings.Contains(err.Error(), "invalid argument") {
			t.Errorf("%s: %v", given, err)
		}
	}
}

// daemon answers requests by "METHOD PATH" without the version.
func daemon(t *testing.T, answers map[string]string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.52")
		path := r.URL.Path
		if strings.HasPrefix(path, "/v1.") {
			_, path, _ = strings.Cut(path[1:], "/")
			path = "/" + path
		}
		body, ok := answers[r.Method+" "+path]
		status := http.StatusOK
		if !ok && path != "/_ping" {
			status, body = http.StatusNotFound, `{"message":"No such container: x"}`
		}
		if code, rest, found := strings.Cut(body, "|"); found {
			fmt.Sscan(code, &status)
			body = rest
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "tcp://"+strings.TrimPrefix(server.URL, "http://"))
	t.Setenv("DOCKER_API_VERSION", "")
}

func TestCommandsPrintAndExitAsDockers(t *testing.T) {
	daemon(t, map[string]string{
		"GET /containers/json":        `[{"Id":"0123456789abcdef","Names":["/web"],"Image":"busybox","Command":"sh -c 'a very long command'","Created":1,"Status":"Up 2 seconds"}]`,
		"GET /images/json":            `[{"Id":"sha256:0123456789abcdef","RepoTags":["localhost:5000/a:1"],"Created":1,"Size":1234567}]`,
		"GET /containers/web/json":    `{"Id":"0123","State":{"Pid":1234567890123}}`,
		"POST /containers/web/kill":   "204|",
		"POST /containers/create":     `201|{"Id":"0123","Warnings":["careful"]}`,
		"POST /containers/0123/start": `400|{"message":"exec: \"nope\": executable file not found in $PATH: unknown"}`,
		"POST /containers/web/wait":   `{"StatusCode":7}`,
		"POST /commit":                `201|{"Id":"sha256:0123"}`,
		"GET /images/web/history":     `[{"Id":"sha256:0123456789abcdef","Created":1,"CreatedBy":"/bin/sh -c echo a very long command that goes on","Size":1234567,"Comment":"c"}]`,
		"GET /images/get":             "404|{\"message\":\"No such image: x\"}",
		"POST /images/prune":          `{"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:0123"}],"SpaceReclaimed":1234567}`,
		"GET /system/df":              `{"LayersSize":2000000,"Images":[{"Id":"sha256:0123","Size":2000000,"SharedSize":0,"Containers":0}]}`,
	})
	for _, test := range []struct {
		line, out, err string
		code           int
	}{
		{"ps", "CONTAINER ID   IMAGE     COMMAND                  CREATED        STATUS         PORTS     NAMES\n0123456789ab   busybox   \"sh -c 'a very long …\"   ", "", 0},
		{"ps -q", "0123456789ab\n", "", 0},
		{"images", "localhost:5000/a   1         0123456789ab", "", 0},
		{"inspect -f {{.State.Pid}} web", "1234567890123\n", "", 0},
		{"inspect x", "[]\n", "no such object: x", 1},
		{"kill web x", "web\n", "No such container: x", 1},
		{"wait web", "7\n", "", 0},
		{"run -d busybox nope", "", "careful\nengined: Error response from daemon: exec: \"nope\"", 127},
		{"run", "", "takes other arguments", 125},
		{"rm", "", "takes other arguments", 1},
		{"commit web a:1", "sha256:0123\n", "", 0},
		{"history -q web", "0123456789ab\n", "", 0},
		{"history web", "IMAGE          CREATED        CREATED BY                                      SIZE      COMMENT\n0123456789ab   ", "", 0},
		{"save -o /nowhere/x x", "", "/nowhere", 1},
		{"save x", "", "No such image: x", 1},
		{"image prune -f", "Untagged: a:1\nDeleted: sha256:0123\nTotal reclaimed space: 1.23MB\n", "", 0},
		{"image prune -a", "WARNING! This will remove all images that no container uses.\n", "", 1},
		{"image", "Usage: engined COMMAND", "", 1},
		{"system df", "TYPE", "", 0},
		{"tag x", "", "takes other arguments", 1},
		{"help", "Usage: engined COMMAND", "", 0},
	} {
		var out, messages strings.Builder
		code := Main(strings.Fields(test.line), strings.NewReader(""), &out, &messages)
		if code != test.code || !strings.HasPrefix(strings.TrimPrefix(out.String(), "REPOSITORY         TAG       IMAGE ID       CREATED        SIZE\n"), test.out) || !strings.Contains(messages.String(), test.err) {
			t.Errorf("%s: exit %d\n%s%s", test.line, code, out.String(), messages.String())
		}
	}
}

func TestProgressEndsWithTheStreamsError(t *testing.T) {
	var out strings.Builder
	err := progress(strings.NewReader(`{"status":"sha256:abc"}{"errorDetail":{"message":"no space"},"error":"no space"}`), &out)
	if out.String() != "sha256:abc\n" || err == nil || err.Error() != "no space" {
		t.Errorf("%q %v", out.String(), err)
	}
}

func TestSignalsOfThisProcessAreNotPassedOn(t *testing.T) {
	for signal := range notProxied {
		proxy(context.Background(), nil, "x", signal, io.Discard) // would panic without a client
	}
}
