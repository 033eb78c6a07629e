package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// serve runs a supervisor without containers in this process.
func serve(t *testing.T, journal JournalLimits) (*Supervisor, *api.Client, string) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	host := &runtime.Host{StateDir: filepath.Join(dir, "state"), Root: filepath.Join(dir, "root"), Shim: "/bin/false",
		Runtime: "true", Limits: runtime.DefaultLimits, Logger: quiet}
	s, err := Open(Config{Host: host, Workers: 2, Version: "1.2.3", Journal: journal, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := Listen("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, []net.Listener{listener}, time.Second, func() { close(ready) })
	}()
	<-ready
	client, err := api.Dial(t.Context(), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(time.Second); err != nil {
			t.Error(err)
		}
		client.Close()
	})
	return s, client, socket
}

func TestServerAnswersReflectionAndHealth(t *testing.T) {
	_, client, socket := serve(t, JournalLimits{})
	version, err := client.GetServerVersion(t.Context(), &api.GetServerVersionRequest{})
	if err != nil || version.Major != 1 || version.Minor != 2 || version.Patch != 3 {
		t.Errorf("version %v, %v", version, err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || health.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", health, err)
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(fmt.Sprint(answer), "engined.supervisor.v1.Supervisor") {
		t.Errorf("reflection %v, %v", answer, err)
	}
}

func TestUnknownContainerIsNotFoundEverywhere(t *testing.T) {
	_, client, _ := serve(t, JournalLimits{})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"State":  func() error { _, err := client.State(ctx, &api.StateRequest{Id: "x"}); return err },
		"Signal": func() error { _, err := client.Signal(ctx, &api.SignalRequest{Id: "x", Signal: 9}); return err },
		"UpdateContainer": func() error {
			_, err := client.UpdateContainer(ctx, &api.UpdateContainerRequest{Id: "x", Status: "paused"})
			return err
		},
		"UpdateProcess": func() error {
			_, err := client.UpdateProcess(ctx, &api.UpdateProcessRequest{Id: "x", CloseStdin: true})
			return err
		},
		"AddProcess": func() error {
			_, err := client.AddProcess(ctx, &api.AddProcessRequest{Id: "x", Pid: "p", Args: []string{"true"}})
			return err
		},
		"StartContainer": func() error { _, err := client.StartContainer(ctx, &api.StartContainerRequest{Id: "x"}); return err },
		"DeleteContainer": func() error {
			_, err := client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: "x"})
			return err
		},
		"Wait":  func() error { _, err := client.Wait(ctx, &api.WaitRequest{Id: "x"}); return err },
		"Stats": func() error { _, err := client.Stats(ctx, &api.StatsRequest{Id: "x"}); return err },
		"CreateCheckpoint": func() error {
			_, err := client.CreateCheckpoint(ctx, &api.CreateCheckpointRequest{Id: "x", Checkpoint: &api.Checkpoint{Name: "c"}})
			return err
		},
		"DeleteCheckpoint": func() error {
			_, err := client.DeleteCheckpoint(ctx, &api.DeleteCheckpointRequest{Id: "x", Name: "c"})
			return err
		},
		"ListCheckpoint": func() error {
			_, err := client.ListCheckpoint(ctx, &api.ListCheckpointRequest{Id: "x"})
			return err
		},
	} {
		err := call()
		if code, subject := errdefs.CodeAndSubject(err); code != errdefs.NoSuchContainer || subject != "x" || errdefs.KindOf(err) != errdefs.NotFound {
			t.Errorf("%s: kind %q, code %q, subject %q: %v", name, errdefs.KindOf(err), code, subject, err)
		}
	}
}

// happen records a container's life without one.
func happen(t *testing.T, s *Supervisor, id string) {
	t.Helper()
	for _, typ := range []string{eventCreated, eventForget, eventDelete} {
		if err := s.record(&api.Event{Type: typ, Id: id}, func(*table) {}); err != nil {
			t.Fatal(err)
		}
	}
}

func received(t *testing.T, client *api.Client, request *api.EventsRequest) (events []*api.Event) {
	t.Helper()
	stream, err := client.Events(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
}

func TestEventsAreChosen(t *testing.T) {
	s, client, _ := serve(t, JournalLimits{})
	happen(t, s, "a")
	middle := s.journal.last()
	later := timestamppb.Now()
	happen(t, s, "b")
	for name, test := range map[string]struct {
		request *api.EventsRequest
		want    string
	}{
		"all that is stored":  {&api.EventsRequest{StoredOnly: true}, "created a, delete a, created b, delete b"},
		"of one container":    {&api.EventsRequest{StoredOnly: true, Id: "b"}, "created b, delete b"},
		"after a number":      {&api.EventsRequest{StoredOnly: true, Resume: true, AfterSeq: middle}, "created b, delete b"},
		"after the last":      {&api.EventsRequest{StoredOnly: true, Resume: true, AfterSeq: s.journal.last()}, ""},
		"from a time on":      {&api.EventsRequest{StoredOnly: true, Timestamp: later}, "created b, delete b"},
		"what never happened": {&api.EventsRequest{StoredOnly: true, Resume: true, AfterSeq: s.journal.last() + 100}, "snapshot "},
		"long ago":            {&api.EventsRequest{StoredOnly: true, Resume: true, AfterSeq: 5}, "snapshot "},
	} {
		var got []string
		for _, event := range received(t, client, test.request) {
			got = append(got, event.Type+" "+event.Id)
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestReaderThatFallsBehindGetsASnapshot(t *testing.T) {
	s, client, _ := serve(t, JournalLimits{Events: 160, Bytes: 1 << 20})
	stream, err := client.Events(t.Context(), &api.EventsRequest{Resume: true, AfterSeq: s.journal.last()})
	if err != nil {
		t.Fatal(err)
	}
	happen(t, s, "first")
	if event, err := stream.Recv(); err != nil || event.Id != "first" {
		t.Fatalf("%v, %v", event, err)
	}
	// Several times what the client takes unread, so that the reader really is behind.
	long := strings.Repeat("x", 16<<10)
	for i := range 300 {
		happen(t, s, fmt.Sprint(i, long))
	}
	snapshots, last := 0, uint64(0)
	for last < s.journal.last() {
		event, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if event.Seq <= last {
			t.Fatalf("number %d after %d", event.Seq, last)
		}
		last = event.Seq
		if event.Type == "snapshot" {
			snapshots++
		}
	}
	if snapshots == 0 {
		t.Error("no snapshot")
	}
}

func TestPanicsBecomeErrors(t *testing.T) {
	s, _, _ := serve(t, JournalLimits{})
	_, err := s.answer(t.Context(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("x") })
	if errdefs.KindOf(api.FromStatus(err)) != errdefs.Internal {
		t.Errorf("in a handler: %v", err)
	}
	_, err = do(t.Context(), s, "a", exclusive, func(context.Context) (int, error) { panic("x") })
	if errdefs.KindOf(err) != errdefs.Internal {
		t.Errorf("in work: %v", err)
	}
	if _, err := do(t.Context(), s, "a", exclusive, func(context.Context) (int, error) { return 1, nil }); err != nil {
		t.Errorf("the next work of that container: %v", err)
	}
}

func TestWorkOutlivesItsClient(t *testing.T) {
	s, _, _ := serve(t, JournalLimits{})
	ctx, cancel := context.WithCancel(t.Context())
	began, finish, finished := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		<-began
		cancel()
	}()
	_, err := do(ctx, s, "a", exclusive, func(ctx context.Context) (int, error) {
		close(began)
		<-finish
		finished <- ctx.Err()
		return 0, nil
	})
	if errdefs.KindOf(err) != errdefs.Canceled {
		t.Errorf("the client got %v", err)
	}
	close(finish)
	if err := <-finished; err != nil {
		t.Errorf("the work's context ended: %v", err)
	}
}

// TestWaitForAProcessThatFailsToStartEnds: there is no exit to come.
func TestWaitForAProcessThatFailsToStartEnds(t *testing.T) {
	s, client, _ := serve(t, JournalLimits{})
	c := &container{status: statusRunning, processes: []*process{newProcess(runtime.Init, nil, runtime.Request{}), newProcess("p", nil, runtime.Request{})}}
	held, hold := make(chan struct{}), make(chan struct{})
	if err := errors.Join(
		s.ask(func(table *table) error { table.containers["a"] = c; return nil }),
		s.post(func(*table) { close(held); <-hold }),
	); err != nil {
		t.Fatal(err)
	}
	<-held // and so not in the queue itself
	ended := make(chan error, 1)
	go func() {
		_, err := client.Wait(t.Context(), &api.WaitRequest{Id: "a", Pid: "p"})
		ended <- err
	}()
	for len(s.tasks) == 0 {
		time.Sleep(time.Millisecond) // nothing tells that it is in the queue
	}
	if err := s.post(func(table *table) { c.drop("p"); delete(table.containers, "a") }); err != nil {
		t.Fatal(err)
	}
	close(hold)
	select {
	case err := <-ended:
		if errdefs.CodeOf(err) != errdefs.NoSuchExec {
			t.Errorf("%v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for ever")
	}
}

func TestListenRefusesWhatIsNotPrivate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"", "unix://x", "tcp://0.0.0.0:0", "tcp://:0", "tcp://example.org:1", "fd://", "unix://" + file} {
		if listener, err := Listen(address); err == nil {
			listener.Close()
			t.Errorf("%q is taken", address)
		}
	}
	listener, err := Listen("tcp://127.0.0.1:0")
	if err != nil {
		t.Error(err)
	} else {
		listener.Close()
	}
}

// TestPeer is no test by itself: it is what another user runs.
func TestPeer(t *testing.T) {
	socket := os.Getenv("SUPERVISOR_TEST_PEER")
	if socket == "" {
		t.Skip("run by TestOtherUsersAreTurnedAway")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := api.Dial(ctx, "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.State(ctx, &api.StateRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestOtherUsersAreTurnedAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	_, _, socket := serve(t, JournalLimits{})
	about, err := os.Stat(socket)
	if err != nil || about.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode: %v, %v", about.Mode(), err)
	}
	// The file modes are the first fence; take them away to see the second.
	open, err := os.MkdirTemp("", "engined-supervisor-test-peer-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(open)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(open, "peer")
	for _, err := range []error{
		os.Chmod(open, 0o755), exec.Command("cp", self, copied).Run(), os.Chmod(copied, 0o755),
		os.Link(socket, filepath.Join(open, "socket")), os.Chmod(socket, 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for uid, allowed := range map[uint32]bool{0: true, 65534: false} {
		peer := exec.Command(copied, "-test.run", "^TestPeer$")
		peer.Dir = open
		peer.Env = append(os.Environ(), "SUPERVISOR_TEST_PEER="+filepath.Join(open, "socket"))
		peer.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if said, err := peer.CombinedOutput(); (err == nil) != allowed {
			t.Errorf("uid %d: %v\n%s", uid, err, said)
		}
	}
}
