package container

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// pair returns two ends of a connection with descriptors.
func pair(t *testing.T) (ours, client net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		file.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func upgradeTo(conn net.Conn) Upgrade {
	return func(bool) (net.Conn, []byte, error) { return conn, []byte("ahead"), nil }
}

func TestClientsThatAttachBeforeTheStartAreHandedOver(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web", func(r *CreateRequest) { r.Config.OpenStdin = true })
	conn, client := pair(t)
	options := AttachOptions{Stdin: true, Stdout: true, Stream: true, DetachKeys: "ctrl-a,d"}
	if err := w.Attach(t.Context(), id, options, upgradeTo(conn)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("typed early")); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if w.tasks.last.AwaitAttach != 1 || !w.tasks.last.OpenStdin {
		t.Errorf("request %+v", w.tasks.last)
	}
	req := w.tasks.attached[0]
	if !req.Stdin || string(req.Read) != "ahead" || !bytes.Equal(req.DetachKeys, []byte{1, 'd'}) {
		t.Errorf("attached %+v", req)
	}
	var early [32]byte
	n, err := w.tasks.conns[0].Read(early[:])
	if string(early[:n]) != "typed early" {
		t.Errorf("input typed early: %q, %v", early[:n], err)
	}
}

func TestAStartThatBeginsBeforeTheConnectionArrivesWaitsForIt(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	conn, _ := pair(t)
	started := make(chan error, 1)
	created := make(chan struct{})
	w.tasks.onCreate = func(string) error { close(created); return nil }
	err := w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true}, func(bool) (net.Conn, []byte, error) {
		// The client has its answer, and starts the container.
		go func() { started <- w.Start(t.Context(), id) }()
		<-created
		return conn, nil, nil
	})
	if err := errors.Join(err, <-started); err != nil {
		t.Fatal(err)
	}
	if w.tasks.last.AwaitAttach != 1 || len(w.tasks.attached) != 1 {
		t.Errorf("%d awaited, %d attached", w.tasks.last.AwaitAttach, len(w.tasks.attached))
	}
}

func TestAnUpgradeThatFailsLeavesNoPlace(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	err := w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true}, func(bool) (net.Conn, []byte, error) {
		return nil, nil, errFake
	})
	if !errors.Is(err, errFake) {
		t.Errorf("err = %v", err)
	}
	if err := w.Start(t.Context(), id); err != nil || w.tasks.last.AwaitAttach != 0 {
		t.Errorf("%v, %d awaited", err, w.tasks.last.AwaitAttach)
	}
}

func TestAClientThatHangsUpBeforeTheStartIsForgotten(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	conn, client := pair(t)
	if err := w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true}, upgradeTo(conn)); err != nil {
		t.Fatal(err)
	}
	c, err := w.index.find(id)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	p := c.parked[0]
	c.mu.Unlock()
	p.mu.Lock()
	watched := p.watched
	p.mu.Unlock()
	client.Close()
	select {
	case <-watched:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if w.tasks.last.AwaitAttach != 0 || len(w.tasks.attached) != 0 {
		t.Errorf("%d awaited, %d attached", w.tasks.last.AwaitAttach, len(w.tasks.attached))
	}
}

func TestAStartThatFailsHangsUpOnParkedClients(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	conn, client := pair(t)
	if err := w.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true}, upgradeTo(conn)); err != nil {
		t.Fatal(err)
	}
	w.tasks.onCreate = func(string) error { return errFake }
	if err := w.Start(t.Context(), id); err == nil {
		t.Fatal("no error")
	}
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := client.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client still waits")
	}
}

func TestAnExecRunsOnceAndTellsItsExit(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	exec, err := w.ExecCreate(t.Context(), id, apicontainer.ExecCreateRequest{Cmd: []string{"id", "-u"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	conn, _ := pair(t)
	if err := w.ExecStart(t.Context(), exec, ExecStartOptions{}, upgradeTo(conn)); err != nil {
		t.Fatal(err)
	}
	if got := w.tasks.execs[0]; got.AwaitAttach != 1 || got.Process != exec || got.Spec.Args[1] != "-u" {
		t.Errorf("request %+v", got)
	}
	expectKind(t, w.ExecStart(t.Context(), exec, ExecStartOptions{}, nil), errdefs.Conflict, "")
	w.tasks.emit(task.Event{Type: task.EventExit, ID: id, Process: exec, Exit: &task.Exit{Status: 5, Time: time.Now()}})
	e, err := w.execs.find(exec)
	if err != nil {
		t.Fatal(err)
	}
	<-e.done
	found, err := w.ExecInspect(t.Context(), exec)
	if err != nil || found.Running || found.ExitCode == nil || *found.ExitCode != 5 {
		t.Errorf("%+v, %v", found, err)
	}
	w.quiet()
	if got := strings.Join(w.told(id), ","); got != "create,start,exec_create: id -u,exec_start: id -u,exec_die" {
		t.Errorf("events %s", got)
	}
}

func TestAnExecThatCannotStartIsToldOnTheStream(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	w.tasks.onExec = func(task.ExecRequest) error {
		return errdefs.InvalidArgument.Coded(errdefs.ExecNotFound, "nope", `exec: "nope": executable file not found in $PATH`)
	}
	exec, err := w.ExecCreate(t.Context(), id, apicontainer.ExecCreateRequest{Cmd: []string{"nope"}})
	if err != nil {
		t.Fatal(err)
	}
	conn, client := pair(t)
	if err := w.ExecStart(t.Context(), exec, ExecStartOptions{}, upgradeTo(conn)); err != nil {
		t.Fatal(err)
	}
	var frame [256]byte
	n, err := client.Read(frame[:])
	if err != nil || frame[0] != 1 || !strings.Contains(string(frame[8:n]), "executable file not found in $PATH") {
		t.Errorf("%q, %v", frame[:n], err)
	}
	if found, err := w.ExecInspect(t.Context(), exec); err != nil || *found.ExitCode != 127 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestCommandsEndWithTheirContainer(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	exec, err := w.ExecCreate(t.Context(), id, apicontainer.ExecCreateRequest{Cmd: []string{"sleep"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ExecStart(t.Context(), exec, ExecStartOptions{Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	ended := w.waitFor(id, waitNotRunning)
	w.tasks.exit(id, 0)
	w.receive(ended)
	if found, err := w.ExecInspect(t.Context(), exec); err != nil || found.Running {
		t.Errorf("%+v, %v", found, err)
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = w.ExecInspect(t.Context(), exec)
	expectKind(t, err, errdefs.NotFound, errdefs.NoSuchExec)
}

func TestDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "a", "ctrl-p,ctrl-q": "\x10\x11", "ctrl-@,x": "\x00x", "ctrl-[": "\x1b", ",,b": ",b", "ctrl-_": "\x1f",
	} {
		if got, err := parseKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-A", "ab", "a,ctrl-pp"} {
		if _, err := parseKeys(text); errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// lines collects a log.
type lines struct{ bytes.Buffer }

func TestAFollowerEndsWithItsContainer(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	log := `{"log":"one\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}` + "\n" +
		`{"log":"bad\n","stream":"stderr","time":"2026-01-02T03:04:06Z"}` + "\n"
	if err := os.WriteFile(filepath.Join(w.dataDir(id), id+"-json.log"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	var got lines
	done := make(chan error, 1)
	go func() {
		done <- w.Logs(t.Context(), id, LogsOptions{Stdout: true, Follow: true, Tail: -1, Timestamps: true}, &got)
	}()
	select {
	case err := <-done:
		t.Fatal("it ended before the container:", err)
	case <-time.After(50 * time.Millisecond):
	}
	w.tasks.exit(id, 0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x00\x00\x00\x00\x23" + "2026-01-02T03:04:05.000000000Z one\n"; got.String() != want {
		t.Errorf("%q", got.String())
	}
}

func (l *lines) Begin(bool) (io.Writer, error) { return l, nil }

// What is written once the answer has begun is new to a follower, however late
// it is looked for.
func TestAFollowerMissesNothingThatItsAnswerIsOlderThan(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	got := &writtenInto{path: filepath.Join(w.dataDir(id), id+"-json.log")}
	if err := os.WriteFile(got.path, []byte(`{"log":"old\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got.begun = func() { w.tasks.exit(id, 0) }
	if err := w.Logs(t.Context(), id, LogsOptions{Stdout: true, Follow: true, Tail: 0}, got); err != nil {
		t.Fatal(err)
	}
	if want := "\x01\x00\x00\x00\x00\x00\x00\x04new\n"; got.String() != want {
		t.Errorf("%q, want %q", got.String(), want)
	}
}

// writtenInto gets a line into the log as soon as the answer has begun.
type writtenInto struct {
	lines
	path  string
	begun func()
}

func (l *writtenInto) Begin(bool) (io.Writer, error) {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	_, err = file.WriteString(`{"log":"new\n","stream":"stdout","time":"2026-01-02T03:04:06Z"}` + "\n")
	l.begun()
	return l, err
}
