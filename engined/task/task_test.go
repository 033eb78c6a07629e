package task

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

// scripted is a supervisor that answers from a script.
type scripted struct {
	supervisor.UnimplementedSupervisorServer
	created chan *supervisor.CreateContainerRequest
	added   chan *supervisor.AddProcessRequest
	deleted chan *supervisor.DeleteContainerRequest
	state   *supervisor.StateResponse
	fail    error
}

func (s *scripted) CreateContainer(_ context.Context, req *supervisor.CreateContainerRequest) (*supervisor.CreateContainerResponse, error) {
	if s.fail != nil {
		return nil, supervisor.ToStatus(s.fail)
	}
	s.created <- req
	return &supervisor.CreateContainerResponse{Container: s.state.GetContainers()[0]}, nil
}

func (s *scripted) AddProcess(_ context.Context, req *supervisor.AddProcessRequest) (*supervisor.AddProcessResponse, error) {
	s.added <- req
	return &supervisor.AddProcessResponse{SystemPid: 77}, nil
}

func (s *scripted) DeleteContainer(_ context.Context, req *supervisor.DeleteContainerRequest) (*supervisor.DeleteContainerResponse, error) {
	s.deleted <- req
	return &supervisor.DeleteContainerResponse{}, nil
}

func (s *scripted) State(context.Context, *supervisor.StateRequest) (*supervisor.StateResponse, error) {
	return s.state, nil
}

func (s *scripted) Events(req *supervisor.EventsRequest, stream grpc.ServerStreamingServer[supervisor.Event]) error {
	for seq := req.GetAfterSeq() + 1; seq <= req.GetAfterSeq()+2; seq++ {
		if err := stream.Send(&supervisor.Event{Seq: seq, Type: EventExit, Id: "c", Status: 3}); err != nil {
			return err
		}
	}
	return stream.Send(&supervisor.Event{Seq: 90, Type: EventSnapshot, State: s.state})
}

func dial(t *testing.T, server *scripted) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	supervisor.RegisterSupervisorServer(g, server)
	served := make(chan struct{})
	go func() { defer close(served); g.Serve(listener) }()
	client, err := Dial(t.Context(), "unix://"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		g.Stop()
		<-served
	})
	return client
}

func newScripted() *scripted {
	return &scripted{
		created: make(chan *supervisor.CreateContainerRequest, 1), added: make(chan *supervisor.AddProcessRequest, 1),
		deleted: make(chan *supervisor.DeleteContainerRequest, 2),
		state: &supervisor.StateResponse{Seq: 41, Containers: []*supervisor.Container{{
			Id: "c", Status: "stopped", ShimSocket: "/s", Pids: []uint32{1, 2},
			Processes: []*supervisor.Process{{Pid: "init", SystemPid: 9, StartedAt: timestamppb.New(time.Unix(5, 0)),
				Exit: &supervisor.Exit{Status: 137, Signal: 9, OomKilled: true, Reason: "r", ExitedAt: timestamppb.New(time.Unix(6, 0))}}},
		}}},
	}
}

func TestCallsCarryWhatTheyAreGiven(t *testing.T) {
	server := newScripted()
	client := dial(t, server)
	made, err := client.Create(t.Context(), CreateRequest{ID: "c", Bundle: "/b", OpenStdin: true, AwaitAttach: 2, Width: 80, Height: 24,
		Log: &shim.Log{Driver: "json-file", Path: "/log", MaxSize: 10, MaxFile: 3}})
	if err != nil || made.Socket != "/s" {
		t.Fatal(made, err)
	}
	req := <-server.created
	if req.GetBundlePath() != "/b" || !req.GetOpenStdin() || req.GetAwaitAttach() != 2 || req.GetWidth() != 80 || req.GetLog().GetMaxFile() != 3 || req.GetCreateOnly() {
		t.Errorf("create: %v", req)
	}
	pid, err := client.Exec(t.Context(), ExecRequest{ID: "c", Process: "p", AwaitAttach: 1, Spec: &specs.Process{
		Args: []string{"id"}, Cwd: "/", User: specs.User{UID: 7, AdditionalGids: []uint32{8}},
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}}})
	if err != nil || pid != 77 {
		t.Fatal(pid, err)
	}
	add := <-server.added
	if add.GetUser().GetUid() != 7 || !slices.Equal(add.GetCapabilities(), []string{"CAP_KILL"}) || add.GetRlimits()[0].GetHard() != 2 || add.GetPid() != "p" {
		t.Errorf("exec: %v", add)
	}
	if err := errors.Join(client.Delete(t.Context(), "c", true), client.Forget(t.Context(), "c", "p")); err != nil {
		t.Fatal(err)
	}
	if d := <-server.deleted; !d.GetForce() || d.GetPid() != "" {
		t.Errorf("delete: %v", d)
	}
	if d := <-server.deleted; d.GetForce() || d.GetPid() != "p" {
		t.Errorf("forget: %v", d)
	}
}

func TestErrorsKeepKindAndCode(t *testing.T) {
	server := newScripted()
	server.fail = errdefs.NotFound.Coded(errdefs.ExecNotFound, "nope", "not there")
	_, err := dial(t, server).Create(t.Context(), CreateRequest{ID: "c"})
	if code, subject := errdefs.CodeAndSubject(err); errdefs.KindOf(err) != errdefs.NotFound || code != errdefs.ExecNotFound || subject != "nope" {
		t.Errorf("%v: %s %s", err, code, subject)
	}
}

func TestStateAndEventsAreReadWhole(t *testing.T) {
	client := dial(t, newScripted())
	found, err := client.State(t.Context(), "c")
	if err != nil || !slices.Equal(found.Pids, []int{1, 2}) {
		t.Fatal(found, err)
	}
	want := Exit{Status: 137, Signal: 9, Time: time.Unix(6, 0).UTC(), OOMKilled: true, Reason: "r"}
	if p := found.Process(shim.Init); p == nil || *p.Exit != want || p.Pid != 9 {
		t.Errorf("process %+v", p)
	}
	if _, err := client.State(t.Context(), "other"); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("another one: %v", err)
	}
	var got []Event
	for event, err := range client.EventsAfter(t.Context(), 7) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, event); len(got) == 3 {
			break
		}
	}
	if got[0].Seq != 8 || got[1].Seq != 9 || got[0].Process != shim.Init || got[0].Exit == nil || got[0].Exit.Status != 3 {
		t.Errorf("events %+v", got)
	}
	if s := got[2].Snapshot; s == nil || s.Seq != 90 || len(s.Containers) != 1 {
		t.Errorf("snapshot %+v", s)
	}
}

// listenAsShim accepts one connection and takes one Attach.
func listenAsShim(t *testing.T) (socket string, taken chan shim.AttachRequest, conns chan net.Conn) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "shim.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	taken, conns = make(chan shim.AttachRequest, 1), make(chan net.Conn, 1)
	go func() {
		defer unix.Close(fd)
		accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		peer := shim.NewConn(accepted)
		defer peer.Close()
		p, err := peer.Receive(context.Background())
		var req shim.AttachRequest
		if err != nil || p.Type != shim.Attach || len(p.FDs) != 1 || p.Decode(&req) != nil {
			t.Errorf("packet %+v, %v", p, err)
			return
		}
		file := os.NewFile(uintptr(p.FDs[0]), "client")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Error(err)
			return
		}
		answer, _ := shim.MakePacket(shim.Ok, p.ID, nil)
		if err := peer.Send(context.Background(), answer); err != nil {
			t.Error(err)
		}
		taken <- req
		conns <- conn
	}()
	return socket, taken, conns
}

// opaque hides a connection's descriptor, as TLS does.
type opaque struct{ net.Conn }

func TestAttachHandsTheConnectionOver(t *testing.T) {
	for name, c := range map[string]struct {
		hide  bool
		ahead int
	}{"descriptor": {false, 5}, "relay": {true, 5}, "much read ahead": {false, maxReadAhead + 1}} {
		t.Run(name, func(t *testing.T) {
			socket, taken, conns := listenAsShim(t)
			near, far, err := socketpair()
			if err != nil {
				t.Fatal(err)
			}
			client, err := net.FileConn(far)
			far.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ahead := make([]byte, c.ahead)
			for i := range ahead {
				ahead[i] = 'x'
			}
			var handed net.Conn = near
			if c.hide {
				handed = opaque{near}
			}
			task := &Client{}
			if err := task.Attach(t.Context(), socket, shim.AttachRequest{Process: "init", Stdin: true, Read: ahead}, handed); err != nil {
				t.Fatal(err)
			}
			req, conn := <-taken, <-conns
			if _, err := client.Write([]byte("in")); err != nil {
				t.Fatal(err)
			}
			if err := client.(*net.UnixConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if c.hide {
				// The opaque connection cannot say that the client's side has ended.
				conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			}
			in := make([]byte, c.ahead+2)
			n := copy(in, req.Read)
			if _, err := io.ReadFull(conn, in[n:]); err != nil || string(in) != string(ahead)+"in" {
				t.Errorf("input %d bytes, %v", len(in), err)
			}
			if _, err := conn.Write([]byte("out")); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if out, err := io.ReadAll(client); err != nil || string(out) != "out" {
				t.Errorf("output %q, %v", out, err)
			}
			task.relays.close()
		})
	}
}

func TestAttachToAShimThatIsGone(t *testing.T) {
	near, far, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	err = (&Client{}).Attach(t.Context(), filepath.Join(t.TempDir(), "none"), shim.AttachRequest{}, near)
	if errdefs.KindOf(err) != errdefs.Unavailable {
		t.Errorf("err = %v", err)
	}
	if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is still open: %v", err)
	}
}
