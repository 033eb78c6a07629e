package runtime

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// reluctant is a shim that answers the first Hello with an error, and the second with
// an Exited behind it. It counts who connects.
func reluctant(t *testing.T, listener *os.File, connections chan<- struct{}) {
	for hellos := 0; ; {
		fd, _, err := unix.Accept4(int(listener.Fd()), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return // the test has ended
		}
		connections <- struct{}{}
		conn := shim.NewConn(fd)
		for {
			p, err := conn.Receive(context.Background())
			if err != nil {
				conn.Close()
				break
			}
			if p.Type != shim.Hello {
				reply(t, conn, shim.Ok, p.ID, nil)
				continue
			}
			if hellos++; hellos == 1 {
				reply(t, conn, shim.Error, p.ID, errdefs.ToWire(errdefs.InvalidArgument.Errorf("too much to say")))
				continue
			}
			reply(t, conn, shim.Ok, p.ID, shim.HelloReply{})
			reply(t, conn, shim.Exited, 0, shim.ProcessRef{Process: "victim"})
		}
	}
}

func reply(t *testing.T, conn *shim.Conn, typ shim.Type, id uint32, body any) {
	packet, err := shim.MakePacket(typ, id, body)
	if err == nil {
		err = conn.Send(context.Background(), packet)
	}
	if err != nil {
		t.Error(err)
	}
}

// A refused Hello is no hang-up: the connection, on which all else is asked, stays.
func TestARefusedHelloKeepsTheConnection(t *testing.T) {
	host := testHost(t)
	c := &Container{host: host, dir: t.TempDir(), record: shim.Container{ID: "a"}}
	listener, err := listen(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	connections, ended := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(ended)
		reluctant(t, listener, connections)
	}()
	t.Cleanup(func() {
		c.Close()
		_ = unix.Shutdown(int(listener.Fd()), unix.SHUT_RDWR)
		<-ended
		listener.Close()
	})
	// That the shim lives matters, not which process it is.
	self := shim.Self{Pid: os.Getpid()}
	if self.Start, err = shim.StartTime(self.Pid); err != nil {
		t.Fatal(err)
	}
	if err := shim.WriteFile(filepath.Join(c.dir, shim.SelfFile), self); err != nil {
		t.Fatal(err)
	}
	if err := c.findShim(); err != nil {
		t.Fatal(err)
	}
	if err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for i, want := range []string{"", "", "victim"} {
			if name, err := c.Next(t.Context()); name != want || err != nil {
				t.Errorf("next %d is %q, %v", i, name, err)
			}
		}
	}()
	for waiting := true; waiting; {
		if err := c.Signal(t.Context(), Init, 15); err != nil {
			t.Errorf("a signal meanwhile: %v", err)
			break
		}
		select {
		case <-heard:
			waiting = false
		default:
		}
	}
	<-heard
	if n := len(connections); n != 1 {
		t.Errorf("the shim was called %d times", n)
	}
}
