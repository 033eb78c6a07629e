package shim_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestExitStatusAndLogAreTheProcesss(t *testing.T) {
	b := newBox(t, sh("echo out; echo err >&2; printf end; exit 7"), nil)
	started := b.start(proto.Request{Log: b.jsonLog()})
	exit := b.exit(proto.Init)
	if exit.Status != 7 || exit.Signal != 0 || exit.Time.Before(started.Time) || exit.OOMKilled {
		t.Errorf("exit %+v after start %+v", exit, started)
	}
	if got := b.logged(); !strings.Contains(got, "stdout:out\n") || !strings.Contains(got, "stderr:err\n") || !strings.Contains(got, "stdout:end") {
		t.Errorf("log is %q", got)
	}
	if err := b.client.Signal(b.ctx, proto.Init, 9); errdefs.CodeOf(err) != errdefs.NotRunning {
		t.Errorf("signal to an exited process: %v", err)
	}
	must(t, b.client.Forget(b.ctx, proto.Init))
	if err := b.client.Forget(b.ctx, proto.Init); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("second forget: %v", err)
	}
}

func TestSignalEndsTheProcess(t *testing.T) {
	b := newBox(t, []string{"/bin/sleep", "100"}, nil)
	b.start(proto.Request{})
	must(t, b.client.Signal(b.ctx, proto.Init, int(unix.SIGKILL)))
	if exit := b.exit(proto.Init); exit.Status != 137 || exit.Signal != 9 {
		t.Errorf("exit %+v", exit)
	}
}

func TestTermDoesNotEndTheShimAndIsNotIgnoredInside(t *testing.T) {
	b := newBox(t, sh("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"), nil)
	b.start(proto.Request{AwaitAttach: 1})
	out := bufio.NewReader(&unframe{from: b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true})})
	if line, err := out.ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	must(t, b.command.Process.Signal(unix.SIGTERM))
	must(t, b.command.Process.Signal(unix.SIGHUP))
	must(t, b.client.Signal(b.ctx, proto.Init, int(unix.SIGTERM)))
	if exit := b.exit(proto.Init); exit.Status != 3 {
		t.Errorf("exit %+v", exit)
	}
}

func TestStartErrorsHaveKindAndCode(t *testing.T) {
	for name, c := range map[string]struct {
		args    []string
		change  func(map[string]any)
		code    errdefs.Code
		subject string
	}{
		"not in PATH":    {[]string{"nosuch"}, nil, errdefs.ExecNotFound, "nosuch"},
		"no such file":   {[]string{"/nosuch"}, nil, errdefs.ExecNotFound, "/nosuch"},
		"not executable": {[]string{"/etc"}, nil, errdefs.ExecPermission, "/etc"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, c.args, c.change)
			must(t, os.WriteFile(filepath.Join(b.bundle, "rootfs", "etc"), []byte("x"), 0o644))
			b.request(proto.Init, proto.Request{Log: b.jsonLog()})
			_, err := b.client.Start(b.ctx, proto.Init)
			code, subject := errdefs.CodeAndSubject(err)
			if code != c.code || subject != c.subject {
				t.Errorf("got code %q, subject %q: %v", code, subject, err)
			}
			if _, err := os.Stat("/sys/fs/cgroup/memory/" + b.id); err == nil {
				t.Error("the failed start left its cgroup")
			}
			if got := b.logged(); got != "" {
				t.Errorf("the runtime's words are in the log: %q", got)
			}
		})
	}
}

func TestStartOfABundleWithoutConfigFails(t *testing.T) {
	b := newBox(t, sh("true"), nil)
	must(t, os.Remove(filepath.Join(b.bundle, "config.json")))
	b.request(proto.Init, proto.Request{Terminal: true})
	if _, err := b.client.Start(b.ctx, proto.Init); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("got %v", err)
	}
	if _, err := b.client.Start(b.ctx, "../x"); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a name with a slash: %v", err)
	}
	if _, err := b.client.Start(b.ctx, "other"); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("a process without request: %v", err)
	}
}

func TestNoOutputIsLostBetweenStartAndAttach(t *testing.T) {
	b := newBox(t, sh("echo one; echo two >&2"), nil)
	b.start(proto.Request{AwaitAttach: 2, Log: b.jsonLog()})
	first := b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true, Stderr: true})
	second := b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true})
	got, err := io.ReadAll(first)
	must(t, err)
	if s := string(got); !strings.Contains(s, "\x01\x00\x00\x00\x00\x00\x00\x04one\n") || !strings.Contains(s, "\x02\x00\x00\x00\x00\x00\x00\x04two\n") || len(s) != 24 {
		t.Errorf("first client got %q", got)
	}
	if got, err = io.ReadAll(second); string(got) != "\x01\x00\x00\x00\x00\x00\x00\x04one\n" {
		t.Errorf("second client got %q, %v", got, err)
	}
	// The end of the stream is after exit.json.
	var exit proto.Exit
	must(t, proto.ReadFile(filepath.Join(b.dir, proto.Init, proto.ExitFile), &exit))
	b.exit(proto.Init)
}

func TestReleaseLetsOutputFlow(t *testing.T) {
	b := newBox(t, sh("echo one"), nil)
	b.start(proto.Request{AwaitAttach: 1, Log: b.jsonLog()})
	must(t, b.client.Release(b.ctx, proto.Init))
	b.exit(proto.Init)
	if got := b.logged(); got != "stdout:one\n" {
		t.Errorf("log is %q", got)
	}
}

func TestStdinThroughCatIsWhole(t *testing.T) {
	size := int64(100 << 20)
	if os.Getenv("SHIM_TEST_FULL") != "" {
		size = 1 << 30
	}
	b := newBox(t, []string{"/bin/cat"}, nil)
	b.start(proto.Request{OpenStdin: true, StdinOnce: true, AwaitAttach: 1})
	conn := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true, Stderr: true, Read: []byte("head")})
	sent, got := sha256.New(), sha256.New()
	sent.Write([]byte("head"))
	go func() {
		random := rand.NewChaCha8([32]byte{1})
		io.Copy(conn, io.TeeReader(io.LimitReader(random, size), sent))
		conn.CloseWrite()
	}()
	begin := time.Now()
	n, err := io.Copy(got, &unframe{from: conn})
	if err != nil || n != size+4 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	t.Logf("%.0f MB/s", float64(n)/1e6/time.Since(begin).Seconds())
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("digests differ")
	}
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
}

func TestCloseStdinEndsCat(t *testing.T) {
	b := newBox(t, []string{"/bin/cat"}, nil)
	b.start(proto.Request{OpenStdin: true})
	b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true}).Close()
	must(t, b.client.CloseStdin(b.ctx, proto.Init))
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
}

func TestTerminalHasSizeAndDetachKeys(t *testing.T) {
	b := newBox(t, []string{"/bin/sh"}, func(spec map[string]any) { spec["process"].(map[string]any)["terminal"] = true })
	b.start(proto.Request{Terminal: true, OpenStdin: true, Width: 91, Height: 33, Log: b.jsonLog()})
	conn := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true, Stderr: true})
	expect := func(send, want string) {
		t.Helper()
		conn.Write([]byte(send))
		var seen []byte
		for !bytes.Contains(seen, []byte(want)) {
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			seen = append(seen, buf[:n]...)
			if err != nil {
				t.Fatalf("waiting for %q: %v after %q", want, err, seen)
			}
		}
	}
	expect("stty size\n", "33 91")
	must(t, b.client.Resize(b.ctx, proto.Init, 100, 40))
	expect("stty size\n", "40 100")
	conn.Write([]byte{16})
	conn.Write([]byte{17})
	if rest, err := io.ReadAll(conn); err != nil {
		t.Errorf("after detach: %q, %v", rest, err)
	}
	conn = b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true, DetachKeys: []byte("xyz")})
	expect("echo st''ill\n", "still")
	conn.Write([]byte("exit 4\n"))
	if _, err := io.ReadAll(conn); err != nil {
		t.Error(err)
	}
	if exit := b.exit(proto.Init); exit.Status != 4 {
		t.Errorf("exit %+v", exit)
	}
	if got := b.logged(); !strings.Contains(got, "33 91") {
		t.Errorf("log is %q", got)
	}
}

func TestExecdProcessesAreTheShims(t *testing.T) {
	const processes = 50
	b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
	b.start(proto.Request{})
	_, err := b.exec("bad", proto.Request{}, "nosuch")
	if errdefs.CodeOf(err) != errdefs.ExecNotFound {
		t.Errorf("exec of nothing: %v", err)
	}
	failed := make(chan error, processes)
	for i := range processes {
		name := fmt.Sprintf("p%d", i)
		go func() {
			started, err := b.exec(name, proto.Request{}, sh(fmt.Sprintf("exit %d", i+1))...)
			if err == nil && started.Pid <= 1 {
				err = fmt.Errorf("pid %d", started.Pid)
			}
			failed <- err
		}()
	}
	for range processes {
		must(t, <-failed)
	}
	for left := map[string]bool{}; len(left) < processes; {
		note, err := b.client.Next(b.ctx)
		must(t, err)
		left[note.Exited.Process] = true
	}
	for i := range processes {
		var exit proto.Exit
		name := fmt.Sprintf("p%d", i)
		must(t, proto.ReadFile(filepath.Join(b.dir, name, proto.ExitFile), &exit))
		if exit.Status != i+1 {
			t.Errorf("%s: %+v", name, exit)
		}
		must(t, b.client.Forget(b.ctx, name))
	}
	if left, err := b.client.List(b.ctx); err != nil || jsonOf(left) != `["init"]` {
		t.Errorf("processes %v, %v", left, err)
	}
}

func TestExecWithTerminalAndInput(t *testing.T) {
	b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
	b.start(proto.Request{})
	_, err := b.exec("tty", proto.Request{Terminal: true, AwaitAttach: 1}, sh("tty; exit 5")...)
	must(t, err)
	got, err := io.ReadAll(b.attach(proto.AttachRequest{Process: "tty", Stdout: true}))
	if err != nil || !strings.Contains(string(got), "/dev/pts/") {
		t.Errorf("got %q, %v", got, err)
	}
	if exit := b.exit("tty"); exit.Status != 5 {
		t.Errorf("exit %+v", exit)
	}
	_, err = b.exec("cat", proto.Request{OpenStdin: true, AwaitAttach: 1}, "/bin/cat")
	must(t, err)
	conn := b.attach(proto.AttachRequest{Process: "cat", Stdin: true, Stdout: true})
	conn.Write([]byte("hello"))
	conn.CloseWrite()
	if got, err = io.ReadAll(&unframe{from: conn}); string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCreateOnlyWaitsForResume(t *testing.T) {
	b := newBox(t, sh("echo ran"), nil)
	b.start(proto.Request{CreateOnly: true, Log: b.jsonLog()})
	if got := b.logged(); got != "" {
		t.Errorf("before resume: %q", got)
	}
	started, err := b.client.Resume(b.ctx)
	must(t, err)
	if started.Pid <= 1 {
		t.Errorf("started %+v", started)
	}
	b.exit(proto.Init)
	if got := b.logged(); got != "stdout:ran\n" {
		t.Errorf("log is %q", got)
	}
	if _, err := b.client.Resume(b.ctx); err == nil {
		t.Error("a second resume succeeds")
	}
}

func TestFollowerOfABurstGetsEveryLineAcrossRotation(t *testing.T) {
	const lines = 300_000
	// Who comes when the first files are gone already gets what is there: the
	// burst waits until the follower has the first line.
	b := newBox(t, []string{"/bin/sh", "-c", fmt.Sprintf("echo 1; read go; exec seq 2 %d", lines)}, nil)
	in := filepath.Join(b.dir, "in")
	must(t, unix.Mkfifo(in, 0o600))
	burst, err := os.OpenFile(in, os.O_RDWR, 0)
	must(t, err)
	defer burst.Close()
	done := make(chan struct{})
	r, err := logfile.NewReader(logfile.JSONFile, b.logPath(), logfile.ReadOptions{Tail: -1, Follow: true, Done: done})
	must(t, err)
	defer r.Close()
	log := b.jsonLog()
	log.MaxSize, log.MaxFile, log.Compress = 1<<20, 3, true
	begin := time.Now()
	b.start(proto.Request{Stdin: in, Log: log})
	go func() {
		defer close(done)
		b.exit(proto.Init)
		t.Logf("written after %v", time.Since(begin))
	}()
	for i := 1; i <= lines; i++ {
		e, err := r.Next(b.ctx)
		if err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		if string(e.Line) != fmt.Sprintf("%d\n", i) {
			t.Fatalf("line %d is %q", i, e.Line)
		}
		if i == 1 {
			_, err := burst.WriteString("go\n")
			must(t, err)
		}
	}
	if _, err := r.Next(b.ctx); !errors.Is(err, io.EOF) {
		t.Errorf("after the last line: %v", err)
	}
}

func TestFifosCarryOutputAndAnUnopenedOneIsAnError(t *testing.T) {
	t.Parallel() // most of it is waiting
	if testing.Short() {
		t.Skip("waits ten seconds for a fifo")
	}
	b := newBox(t, []string{"/bin/cat"}, nil)
	in, out := filepath.Join(b.dir, "in"), filepath.Join(b.dir, "out")
	must(t, unix.Mkfifo(in, 0o600))
	must(t, unix.Mkfifo(out, 0o600))
	b.request(proto.Init, proto.Request{Stdin: in, Stdout: out})
	if _, err := b.client.Start(b.ctx, proto.Init); errdefs.KindOf(err) != errdefs.DeadlineExceeded || !strings.Contains(err.Error(), out) {
		t.Fatalf("start without a reader: %v", err)
	}
	go func() {
		_, err := b.client.Start(b.ctx, proto.Init)
		if err != nil {
			t.Error(err)
		}
	}()
	reader, err := os.Open(out)
	must(t, err)
	defer reader.Close()
	writer, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	defer writer.Close()
	writer.Write([]byte("through\n"))
	if line, err := bufio.NewReader(reader).ReadString('\n'); line != "through\n" {
		t.Fatalf("%q, %v", line, err)
	}
	must(t, b.client.CloseStdin(b.ctx, proto.Init))
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// What a client has written to its fifo before it closes stdin arrives, also of a
// process that takes its time: all that pipe, queue and fifo can hold.
func TestCloseStdinComesAfterWhatTheFifoHolds(t *testing.T) {
	b := newBox(t, sh("while ! [ -e /go ]; do sleep 0.05; done; exec cat"), nil)
	in, out := filepath.Join(b.dir, "in"), filepath.Join(b.dir, "out")
	must(t, unix.Mkfifo(in, 0o600))
	must(t, unix.Mkfifo(out, 0o600))
	reader, err := os.OpenFile(out, os.O_RDWR, 0)
	must(t, err)
	defer reader.Close()
	b.start(proto.Request{Stdin: in, Stdout: out})
	sent := fillFifo(t, in)
	must(t, b.client.CloseStdin(b.ctx, proto.Init))
	must(t, os.WriteFile(filepath.Join(b.bundle, "rootfs", "go"), nil, 0o600))
	got := make([]byte, len(sent))
	must(t, reader.SetReadDeadline(time.Now().Add(time.Minute)))
	if n, err := io.ReadFull(reader, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came, %v", n, len(sent), err)
	}
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// fillFifo writes until nobody takes any more, and returns what it has written.
func fillFifo(t *testing.T, path string) (sent []byte) {
	t.Helper()
	writer, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	defer writer.Close()
	random := rand.NewChaCha8([32]byte{2})
	for piece := make([]byte, 4096); ; sent = append(sent, piece...) {
		random.Read(piece)
		must(t, writer.SetWriteDeadline(time.Now().Add(time.Second)))
		if _, err := writer.Write(piece); err != nil {
			return sent
		}
	}
}

// An exit for which the disk has no room is written and told when there is.
func TestExitWaitsForRoomOnTheDisk(t *testing.T) {
	b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
	b.start(proto.Request{})
	dir := filepath.Join(b.dir, proto.Init)
	must(t, unix.Mount("small", dir, "tmpfs", 0, "size=4096"))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	filler := filepath.Join(dir, "filler")
	must(t, os.WriteFile(filler, make([]byte, 4096), 0o600))
	must(t, b.client.Signal(b.ctx, proto.Init, int(unix.SIGKILL)))
	for said := ""; !strings.Contains(said, proto.ExitFile); {
		data, err := os.ReadFile(filepath.Join(b.dir, proto.LogFile))
		must(t, err)
		said = string(data)
		must(t, b.ctx.Err())
	}
	must(t, os.Remove(filler))
	if exit := b.exit(proto.Init); exit.Signal != int(unix.SIGKILL) {
		t.Errorf("exit %+v", exit)
	}
}

func TestKilledRuntimeLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	hook, begun := filepath.Join(dir, "hook"), filepath.Join(dir, "begun")
	must(t, unix.Mkfifo(begun, 0o600))
	must(t, os.WriteFile(hook, []byte("#!/bin/sh\necho >"+begun+"\nexec sleep 1000\n"), 0o755))
	b := newBox(t, sh("true"), func(spec map[string]any) {
		spec["hooks"] = map[string]any{"prestart": []any{map[string]any{"path": hook, "timeout": 5}}}
	})
	b.request(proto.Init, proto.Request{})
	result := make(chan error, 1)
	go func() {
		_, err := b.client.Start(b.ctx, proto.Init)
		result <- err
	}()
	pid := b.child()
	_, err := os.ReadFile(begun)
	must(t, err)
	must(t, unix.Kill(pid, unix.SIGKILL))
	if err := <-result; err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("start: %v", err)
	}
}

func TestBadPacketsAreAnsweredAndHarmless(t *testing.T) {
	b := newBox(t, sh("true"), nil)
	conn, err := proto.Dial(b.ctx, filepath.Join(b.dir, proto.SocketFile))
	must(t, err)
	defer conn.Close()
	raw := func(message []byte) proto.Packet {
		t.Helper()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.Connect(fd, &unix.SockaddrUnix{Name: shortPath(t, b.dir)}))
		must(t, unix.Send(fd, message, 0))
		buf := make([]byte, 1<<17)
		n, _, err := proto.ReceiveMessage(fd, buf)
		must(t, err)
		p, err := proto.ParsePacket(buf[:n])
		must(t, err)
		return p
	}
	header := func(version, typ byte) []byte {
		return binary.LittleEndian.AppendUint32([]byte{version, typ, 0, 0}, 77)
	}
	for name, c := range map[string]struct {
		message []byte
		kind    errdefs.Kind
	}{
		"short":         {[]byte{1, 2}, errdefs.InvalidArgument},
		"version":       {header(9, byte(proto.Hello)), errdefs.FailedPrecondition},
		"type":          {header(1, 200), errdefs.NotImplemented},
		"body":          {append(header(1, byte(proto.Start)), "{nonsense"...), errdefs.InvalidArgument},
		"size":          {append(header(1, byte(proto.Start)), make([]byte, proto.MaxBody+1)...), errdefs.InvalidArgument},
		"no descriptor": {append(header(1, byte(proto.Attach)), `{"process":"init"}`...), errdefs.InvalidArgument},
		"no process":    {append(header(1, byte(proto.CloseStdin)), `{"process":"x"}`...), errdefs.NotFound},
	} {
		p := raw(c.message)
		var wire errdefs.Wire
		if err := p.Decode(&wire); p.Type != proto.Error || err != nil || wire.Kind != c.kind {
			t.Errorf("%s: %s %s", name, p.Type, p.Body)
		}
	}
	if _, err := b.client.Hello(b.ctx); err != nil {
		t.Error(err)
	}
}

func shortPath(t *testing.T, dir string) string {
	at, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { at.Close() })
	return fmt.Sprintf("/proc/self/fd/%d/%s", at.Fd(), proto.SocketFile)
}

func TestOOMKillIsSaid(t *testing.T) {
	b := newBox(t, sh("dd if=/dev/zero of=/dev/null bs=200M count=1"), func(spec map[string]any) {
		linux := spec["linux"].(map[string]any)
		linux["resources"] = map[string]any{"memory": map[string]int{"limit": 20 << 20, "swap": 20 << 20}}
	})
	b.start(proto.Request{})
	if exit := b.exit(proto.Init); exit.Status != 137 || !exit.OOMKilled {
		t.Errorf("exit %+v", exit)
	}
}
