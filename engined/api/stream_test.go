package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/container"
	"github.com/engined/engined/proto/errdefs"
)

const upgradeHead = "Host: d\nConnection: Upgrade\nUpgrade: tcp\n"

// echo upgrades and writes back what it was given ahead and then reads.
func echo(tty bool) func(container.AttachOptions, container.Upgrade) error {
	return func(_ container.AttachOptions, upgrade container.Upgrade) error {
		conn, ahead, err := upgrade(tty)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "ahead %q;", ahead); err != nil {
			return err
		}
		_, err = io.Copy(conn, conn)
		return err
	}
}

func TestAttachTakesTheConnectionOver(t *testing.T) {
	for _, test := range []struct {
		name, request string
		tty           bool
		head          string
	}{
		{"upgrade", "POST /v1.42/containers/x/attach?stream=1 HTTP/1.1\n" + upgradeHead + "\n", false,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"upgrade of a terminal", "POST /v1.42/containers/x/attach?stream=1 HTTP/1.1\n" + upgradeHead + "\n", true,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"before 1.42", "POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\n" + upgradeHead + "\n", false,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"no upgrade", "POST /containers/x/attach HTTP/1.1\nHost: d\n\n", false,
			"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := raw(t, onSocket(t, newServer(&fakeContainers{attach: echo(test.tty)})), test.request+"early")
			if _, err := io.WriteString(conn, " late"); err != nil {
				t.Fatal(err)
			}
			if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			head, stream, _ := strings.Cut(readAll(t, conn), "ahead ")
			if head != test.head {
				t.Errorf("head %q", head)
			}
			// What was read ahead and what comes after it are all there, in order.
			if got := strings.NewReplacer(`"`, "", ";", "").Replace(stream); got != "early late" {
				t.Errorf("stream %q", stream)
			}
		})
	}
}

func TestAnErrorBeforeTheUpgradeIsAStatus(t *testing.T) {
	s := newServer(&fakeContainers{attach: func(container.AttachOptions, container.Upgrade) error {
		return errdefs.NotFound.Coded(errdefs.NoSuchContainer, "x", "x")
	}})
	conn := raw(t, onSocket(t, s), "POST /containers/x/attach HTTP/1.1\n"+strings.Replace(upgradeHead, "Upgrade\n", "close\n", 1)+"\n")
	if got := readAll(t, conn); !strings.HasPrefix(got, "HTTP/1.1 404") || !strings.Contains(got, "No such container: x") {
		t.Errorf("got %q", got)
	}
}

func TestExecStartReadsItsBodyBeforeTheStream(t *testing.T) {
	body := `{"Tty":true,"ConsoleSize":[24,80]}`
	var got container.ExecStartOptions
	s := newServer(&fakeContainers{execStart: func(options container.ExecStartOptions, upgrade container.Upgrade) error {
		got = options
		return echo(true)(container.AttachOptions{}, upgrade)
	}})
	conn := raw(t, onSocket(t, s), fmt.Sprintf("POST /v1.42/exec/x/start HTTP/1.1\n%sContent-Type: application/json\nContent-Length: %d\n\n%sstdin", upgradeHead, len(body), body))
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer := readAll(t, conn)
	if !got.Tty || got.ConsoleSize == nil || *got.ConsoleSize != [2]uint{24, 80} {
		t.Errorf("options %+v", got)
	}
	if strings.Contains(answer, "ConsoleSize") || !strings.Contains(answer, "stdin") {
		t.Errorf("stream %q", answer)
	}
}

func TestWaitSendsTheHeadersBeforeTheContainerEnds(t *testing.T) {
	result := make(chan apicontainer.WaitResponse, 1)
	var asked apicontainer.WaitCondition
	s := newServer(&fakeContainers{wait: func(condition apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error) {
		asked = condition
		return result, nil
	}})
	conn := raw(t, onSocket(t, s), "POST /v1.30/containers/x/wait?condition=removed HTTP/1.1\nHost: d\nConnection: close\n\n")
	head := make([]byte, len("HTTP/1.1 200 OK"))
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 200 OK" {
		t.Fatalf("%q %v", head, err)
	}
	result <- apicontainer.WaitResponse{StatusCode: 7}
	if rest := readAll(t, conn); !strings.Contains(rest, `{"StatusCode":7}`) {
		t.Errorf("rest %q", rest)
	}
	if asked != apicontainer.WaitConditionRemoved {
		t.Errorf("condition %q", asked)
	}
}

func TestWaitConditions(t *testing.T) {
	for given, want := range map[string]struct {
		status    int
		condition apicontainer.WaitCondition
	}{
		"/v1.29/containers/x/wait?condition=foo":       {200, "not-running"}, // there was no such parameter
		"/v1.30/containers/x/wait":                     {200, "not-running"},
		"/v1.30/containers/x/wait?condition=next-exit": {200, "next-exit"},
		"/v1.30/containers/x/wait?condition=foo":       {400, ""},
	} {
		var asked apicontainer.WaitCondition
		s := newServer(&fakeContainers{wait: func(condition apicontainer.WaitCondition) (<-chan apicontainer.WaitResponse, error) {
			asked = condition
			result := make(chan apicontainer.WaitResponse, 1)
			result <- apicontainer.WaitResponse{}
			return result, nil
		}})
		if w := call(t, s, "POST "+given); w.Code != want.status || asked != want.condition {
			t.Errorf("%s: %d %q", given, w.Code, asked)
		}
	}
}

func TestStreamsEndWhenTheDaemonStops(t *testing.T) {
	closing := make(chan struct{})
	s := newServer(&fakeContainers{logs: func(ctx context.Context, _ container.LogsOptions, w container.LogWriter) error {
		if _, err := w.Begin(false); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	s.Closing = closing
	conn := raw(t, onSocket(t, s), "GET /containers/x/logs?stdout=1&follow=1 HTTP/1.1\nHost: d\nConnection: close\n\n")
	if _, err := io.ReadFull(conn, make([]byte, 15)); err != nil {
		t.Fatal(err)
	}
	close(closing)
	readAll(t, conn)
}

func TestLogsSayWhatTheyAre(t *testing.T) {
	for _, test := range []struct {
		version string
		tty     bool
		media   string
	}{
		{"1.41", false, ""},
		{"1.42", false, "application/vnd.docker.multiplexed-stream"},
		{"1.42", true, "application/vnd.docker.raw-stream"},
	} {
		var got container.LogsOptions
		s := newServer(&fakeContainers{logs: func(_ context.Context, options container.LogsOptions, w container.LogWriter) error {
			got = options
			out, err := w.Begin(test.tty)
			if err != nil {
				return err
			}
			fmt.Fprint(out, "out")
			return nil
		}})
		w := call(t, s, "GET /v"+test.version+"/containers/x/logs?stderr=1&tail=12&since=5")
		if w.Body.String() != "out" || (test.media != "" && w.Header().Get("Content-Type") != test.media) {
			t.Errorf("%+v: %q %q", test, w.Header().Get("Content-Type"), w.Body)
		}
		if got.Stdout || !got.Stderr || got.Tail != 12 || !got.Since.Equal(time.Unix(5, 0)) || !got.Until.IsZero() {
			t.Errorf("options %+v", got)
		}
	}
}

func TestTailThatIsNoNumberIsAll(t *testing.T) {
	for given, want := range map[string]int{"": -1, "all": -1, "abc": -1, "-5": -1, "0": 0, "7": 7} {
		if got := tail(given); got != want {
			t.Errorf("%q: %d", given, got)
		}
	}
}

func TestEventsAreFilteredByEveryKeyAndAnyValue(t *testing.T) {
	s := newServer(nil)
	s.Events = fakeEvents{
		{Type: "container", Action: "start", Actor: apievents.Actor{ID: "c1", Attributes: map[string]string{"name": "web", "image": "busybox:1", "tier": "a"}}},
		{Type: "container", Action: "exec_start: ls", Actor: apievents.Actor{ID: "c2", Attributes: map[string]string{"name": "db", "image": "localhost:5000/x"}}},
		{Type: "network", Action: "connect", Actor: apievents.Actor{ID: "n1", Attributes: map[string]string{"name": "bridge"}}},
	}
	for filters, want := range map[string]string{
		`{}`:                   "c1 c2 n1",
		`{"type":["network"]}`: "n1",
		`{"type":["container"],"event":["start"]}`:    "c1",
		`{"event":["exec_start"]}`:                    "c2",
		`{"container":["db","c1"]}`:                   "c1 c2",
		`{"container":[""]}`:                          "",
		`{"image":["busybox"]}`:                       "c1",
		`{"image":["localhost:5000/x"]}`:              "c2",
		`{"label":["tier=a"]}`:                        "c1",
		`{"label":["tier=b"]}`:                        "",
		`{"network":["bridge"],"type":["container"]}`: "",
	} {
		w := call(t, s, "GET /v1.52/events?until=9&filters="+strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D").Replace(filters))
		var got []string
		for line := range strings.Lines(w.Body.String()) {
			_, after, _ := strings.Cut(line, `"ID":"`)
			id, _, _ := strings.Cut(after, `"`)
			got = append(got, id)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", filters, got, want)
		}
	}
	if w := call(t, s, "GET /events?filters=%7B%22foo%22:%5B%22x%22%5D%7D"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "foo") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
