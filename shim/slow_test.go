package shim_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// Without a log there is nothing to keep output in but memory.
func TestWithoutLogSlowClientGetsEverythingAndIdleOneIsCutOff(t *testing.T) {
	t.Parallel() // most of it is waiting
	b := newBox(t, sh("dd if=/dev/zero bs=64k count=160 2>/dev/null"), nil)
	b.start(proto.Request{AwaitAttach: 2})
	slow := b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true})
	b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true}) // never reads
	n, err := io.Copy(io.Discard, &unframe{from: slow})
	if err != nil || n != 160*64<<10 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
}

// The process ends although twenty clients do not read: it has not waited for
// any of them. Each still gets all, in order, when it reads at last, and what
// they were behind was not in memory.
func TestClientsThatDoNotReadCostALoggedProcessNothing(t *testing.T) {
	const (
		idle  = 20
		lines = 100_000
		size  = int64(lines * 100)
	)
	b := newBox(t, sh(fmt.Sprintf("yes %099d | head -n %d | cat", 0, lines)), nil)
	b.start(proto.Request{AwaitAttach: idle + 1, Log: b.jsonLog()})
	var clients []*net.UnixConn
	for range idle {
		clients = append(clients, b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true}))
	}
	reader := b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true, Stderr: true})
	if n, err := io.Copy(io.Discard, &unframe{from: reader}); n != size || err != nil {
		t.Errorf("who reads got %d bytes, %v", n, err)
	}
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
	peak := number(t, fmt.Sprintf("/proc/%d/status", b.command.Process.Pid), `(?m)^VmHWM:\s+(\d+)`)
	t.Logf("at most %d KiB were resident", peak)
	if peak > 40<<10 {
		t.Errorf("%d KiB were resident, with %d clients each %d bytes behind", peak, idle, size)
	}
	results := make(chan string, idle)
	for _, client := range clients {
		go func() {
			n, err := io.Copy(io.Discard, &unframe{from: client})
			results <- fmt.Sprint(n, err)
		}()
	}
	for range clients {
		if got := <-results; got != fmt.Sprint(size, nil) {
			t.Errorf("an idle client got %s", got)
		}
	}
}

// A client of a logged process may take its time after the end: longer than one
// without a log is waited for, which is seen cut off meanwhile.
func TestOutputOfAnEndedProcessWaitsForItsClient(t *testing.T) {
	t.Parallel() // most of it is waiting
	const size = 40 * 64 << 10
	b := newBox(t, sh("dd if=/dev/zero bs=64k count=40 2>/dev/null; exec sleep 1000"), nil)
	b.start(proto.Request{})
	write := func(name string, count int, log *proto.Log) *net.UnixConn {
		_, err := b.exec(name, proto.Request{AwaitAttach: 1, Log: log}, sh(fmt.Sprintf("dd if=/dev/zero bs=64k count=%d 2>/dev/null", count))...)
		must(t, err)
		client := b.attach(proto.AttachRequest{Process: name, Stdout: true})
		if exit := b.exit(name); exit.Status != 0 {
			t.Errorf("exit %+v", exit)
		}
		return client
	}
	logged := write("logged", 40, b.jsonLog())
	awaitHangup(t, write("unlogged", 12, nil)) // less than the process would have to wait for
	if n, err := io.Copy(io.Discard, &unframe{from: logged}); n != size || err != nil {
		t.Errorf("%d bytes, %v, expected %d", n, err, size)
	}
}

// awaitHangup waits for the other side's end without reading.
func awaitHangup(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		polled := []unix.PollFd{{Fd: int32(fd)}}
		n, err := 0, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(polled, 180_000)
		}
		if n != 1 || err != nil {
			t.Errorf("no hang-up: %v", err)
		}
	}))
}

// What a process has not read is no reason to be told of a broken connection.
func TestInputThatNobodyReadIsNoError(t *testing.T) {
	b := newBox(t, sh("head -c 3; echo end"), nil)
	b.start(proto.Request{OpenStdin: true, AwaitAttach: 1})
	conn := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true})
	sent := make(chan error)
	go func() {
		_, err := io.Copy(conn, io.LimitReader(endless('x'), 10<<20))
		sent <- err
	}()
	if exit := b.exit(proto.Init); exit.Status != 0 {
		t.Errorf("exit %+v", exit)
	}
	if err := <-sent; err != nil && !errors.Is(err, unix.EPIPE) { // nil: the shim took it, for nobody
		t.Errorf("sending ended with %v", err)
	}
	if got, err := io.ReadAll(&unframe{from: conn}); string(got) != "xxxend\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// Output goes to one client after the other: what one that has gone had sent is not
// among it.
func TestInputOfAGoneClientIsNobodysOutput(t *testing.T) {
	b := newBox(t, sh("trap 'echo output; exit' USR1; echo ready; while :; do sleep 0.01; done"), nil)
	b.start(proto.Request{OpenStdin: true, AwaitAttach: 2})
	gone := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true})
	other := &unframe{from: b.attach(proto.AttachRequest{Process: proto.Init, Stdout: true})}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(other, ready); err != nil {
		t.Fatal(err)
	}
	// More than the process's pipe, the shim and the socket hold.
	must(t, gone.SetWriteDeadline(time.Now().Add(time.Second)))
	if n, err := io.Copy(gone, endless('x')); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("sending ended after %d bytes with %v", n, err)
	}
	must(t, gone.CloseRead())
	must(t, b.client.Signal(b.ctx, proto.Init, int(unix.SIGUSR1)))
	if got, err := io.ReadAll(other); string(got) != "output\n" || err != nil {
		t.Errorf("the other client got %q, %v", got, err)
	}
}

// endless is a byte again and again.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestManyAttachesLeaveNothing(t *testing.T) {
	b := newBox(t, []string{"/bin/cat"}, nil)
	b.start(proto.Request{OpenStdin: true})
	fds := func() int {
		names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.command.Process.Pid))
		must(t, err)
		return len(names)
	}
	before := fds()
	for i := range 100 {
		conn := b.attach(proto.AttachRequest{Process: proto.Init, Stdin: true, Stdout: true, DetachKeys: []byte("qq")})
		fmt.Fprintf(conn, "%d\n", i)
		if line, err := bufio.NewReader(&unframe{from: conn}).ReadString('\n'); line != fmt.Sprintf("%d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		if i%2 == 0 {
			conn.Write([]byte("qq"))
			io.Copy(io.Discard, conn)
		}
		conn.Close()
	}
	_, err := b.client.Hello(context.Background()) // after all that came before
	must(t, err)
	if after := fds(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// BenchmarkLines is a container that writes a million short lines, from its
// start to its exit.
func BenchmarkLines(b *testing.B) {
	for _, driver := range []string{"", logfile.JSONFile, logfile.Local} {
		b.Run("log="+driver, func(b *testing.B) {
			for range b.N {
				x := newBox(b, []string{"/bin/seq", "1000000"}, nil)
				var log *proto.Log
				if driver != "" {
					log = &proto.Log{Driver: driver, Path: x.logPath()}
				}
				x.start(proto.Request{Log: log})
				x.exit(proto.Init)
			}
		})
	}
}
