package shim

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// newSink returns a client of a logged process in a loop of its own, and its
// other end.
func newSink(t *testing.T, limit int64) (*sink, *process, net.Conn) {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(l.epoll) })
	s := &Shim{loop: l, sinks: map[*sink]struct{}{}, spillLimit: limit}
	if s.memory, err = mapMemory(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(s.memory.all) })
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[1]), "client")
	defer other.Close()
	conn, err := net.FileConn(other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &process{s: s, console: -1, request: proto.Request{Log: &proto.Log{Path: filepath.Join(t.TempDir(), "log")}}}
	k := &sink{s: s, p: p, fd: fds[0], stdout: true}
	if k.source, err = s.add(k.fd, 0, k.ready); err != nil {
		t.Fatal(err)
	}
	p.sinks = []*sink{k}
	s.sinks[k] = struct{}{}
	t.Cleanup(k.drop)
	return k, p, conn
}

// spin lets the loop run until the sink has sent all and is closed.
func (k *sink) spin(t *testing.T) {
	t.Helper()
	for k.fd >= 0 {
		var events [1]unix.EpollEvent
		if n, err := unix.EpollWait(k.s.epoll, events[:], 10_000); n == 1 {
			k.ready(events[0].Events)
		} else if err != unix.EINTR {
			t.Errorf("it waits for nothing: %d, %v", n, err)
			return
		}
	}
}

func numbered(i int) []byte { return append(bytes.Repeat([]byte{byte('a' + i%26)}, 64<<10), '\n') }

func TestBeyondTheLimitOutputIsLeftOutAndThatIsSaid(t *testing.T) {
	k, p, conn := newSink(t, 1<<20)
	var want bytes.Buffer
	writes := 0
	for ; k.lost == 0; writes++ {
		k.write(logfile.Stdout, numbered(writes))
		if k.lost == 0 {
			want.Write(numbered(writes))
		}
		if k.full {
			t.Fatal("the process would have to wait")
		}
	}
	k.write(logfile.Stdout, numbered(writes))
	if k.lost != 2*int64(len(numbered(0))) {
		t.Errorf("%d bytes are lost", k.lost)
	}
	if len(k.queue) > memoryLimit {
		t.Errorf("%d bytes are in memory", len(k.queue))
	}
	got := make(chan string)
	go func() {
		data, err := io.ReadAll(conn)
		if err != nil {
			data = append(data, err.Error()...)
		}
		got <- string(data)
	}()
	for k.behind() > 0 {
		k.flush()
	}
	k.write(logfile.Stdout, []byte("again\n"))
	p.sinks, k.p = nil, nil
	k.finish()
	k.spin(t)
	head, rest, found := strings.Cut(<-got, "\r\n[131074 bytes of output are left out here")
	if !found || head != want.String() {
		t.Errorf("%d bytes came before the gap, expected %d", len(head), want.Len())
	}
	if _, after, _ := strings.Cut(rest, "\r\n"); after != "again\n" {
		t.Errorf("after the gap came %q", after)
	}
}

// A client that the start waited for is the process's standard output: beyond
// the limit the process waits, until that client has not read for a while.
func TestAnAwaitedClientMakesTheProcessWaitAtTheLimit(t *testing.T) {
	k, _, _ := newSink(t, 1<<20)
	k.awaited = true
	for i := 0; !k.full; i++ {
		if k.behind() > 2<<20 {
			t.Fatal("the process does not wait")
		}
		k.write(logfile.Stdout, numbered(i))
	}
	if k.stall == nil {
		t.Fatal("nobody looks whether the client reads")
	}
	k.taken += stallBytes
	k.stall.run()
	if !k.full || k.stall == nil {
		t.Error("the process does not wait for a client that reads")
	}
	k.stall.run()
	if k.full {
		t.Error("the process waits for a client that does not read")
	}
	k.write(logfile.Stdout, numbered(0))
	if k.fd < 0 || k.lost == 0 {
		t.Errorf("the client is cut off, or got more than the limit: %d lost", k.lost)
	}
}

func TestAFileForSlowClientsHasNoNameAndGoesWithThem(t *testing.T) {
	k, p, _ := newSink(t, 8<<20)
	for i := 0; k.behind() < 4<<20; i++ {
		k.write(logfile.Stdout, numbered(i))
	}
	if k.spill.size() == 0 {
		t.Fatal("all of it is in memory")
	}
	if names, err := os.ReadDir(filepath.Dir(p.request.Log.Path)); len(names) != 0 || err != nil {
		t.Errorf("%v, %v", names, err)
	}
	fd := k.spill.fd
	k.drop()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the file is still open: %v", err)
	}
}

func TestWithoutPlaceForAFileTheProcessWaits(t *testing.T) {
	k, p, _ := newSink(t, 1<<20)
	p.request.Log.Path = "/nosuch/log"
	for i := 0; !k.full; i++ {
		if k.behind() > 2*queueLimit {
			t.Fatal("the process does not wait")
		}
		k.write(logfile.Stdout, numbered(i))
	}
}
