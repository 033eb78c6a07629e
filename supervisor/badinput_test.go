package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestBadInputHasACodeAndNamesTheField asks as any gRPC client would, without
// this project's.
func TestBadInputHasACodeAndNamesTheField(t *testing.T) {
	t.Parallel() // much of it is waiting
	s := newStack(t)
	conn, err := grpc.NewClient(s.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, ctx := api.NewSupervisorClient(conn), t.Context()
	good, empty := s.bundle("exec sleep 1000"), filepath.Join(s.dir, "bundle-empty")
	fifo := filepath.Join(s.dir, "fifo")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("there", "exec sleep 1000")
	create := func(request *api.CreateContainerRequest) func() error {
		return func() error { _, err := client.CreateContainer(ctx, request); return err }
	}
	for _, test := range []struct {
		what string
		call func() error
		code codes.Code
		text string
	}{
		{"an unknown id", func() error { _, err := client.State(ctx, &api.StateRequest{Id: "x"}); return err }, codes.NotFound, "container: x"},
		{"no id", create(&api.CreateContainerRequest{BundlePath: good}), codes.InvalidArgument, "id: "},
		{"no id to wait for", func() error { _, err := client.Wait(ctx, &api.WaitRequest{}); return err }, codes.InvalidArgument, "id: "},
		{"no bundle", create(&api.CreateContainerRequest{Id: "x"}), codes.InvalidArgument, "bundlePath: "},
		{"a bundle without config.json", create(&api.CreateContainerRequest{Id: "x", BundlePath: empty}), codes.InvalidArgument, "config.json"},
		{"a bundle that is not there", create(&api.CreateContainerRequest{Id: "x", BundlePath: "/no/such"}), codes.InvalidArgument, "bundle /no/such"},
		{"no such runtime", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Runtime: "no-such"}), codes.InvalidArgument, `runtime "no-such"`},
		{"a fifo that is not there", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Stdin: fifo + "-not"}), codes.InvalidArgument, "stdin: "},
		{"a file in place of a fifo", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Stderr: filepath.Join(good, "config.json")}), codes.InvalidArgument, "stderr: "},
		{"an id that is taken", create(&api.CreateContainerRequest{Id: "there", BundlePath: good}), codes.AlreadyExists, "there"},
		{"no such checkpoint", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Checkpoint: "none"}), codes.NotFound, "checkpoint: "},
		{"a checkpoint that does not start", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Checkpoint: "c", CreateOnly: true}), codes.InvalidArgument, "create_only: "},
		{"a relative checkpointDir", create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Checkpoint: "c", CheckpointDir: "d"}), codes.InvalidArgument, "checkpointDir: "},
		{"signal 0", func() error { _, err := client.Signal(ctx, &api.SignalRequest{Id: "there"}); return err }, codes.InvalidArgument, "signal: 0"},
		{"an unknown process", func() error {
			_, err := client.Signal(ctx, &api.SignalRequest{Id: "there", Pid: "p", Signal: 9})
			return err
		}, codes.NotFound, "process p"},
		{"a fifo that nobody opens", func() error {
			s.restart("--start-timeout", "1s") // too short for what does start, on a busy machine
			return create(&api.CreateContainerRequest{Id: "x", BundlePath: good, Stdout: fifo})()
		}, codes.DeadlineExceeded, "fifos"},
	} {
		answer := status.Convert(test.call())
		if answer.Code() != test.code || !strings.Contains(answer.Message(), test.text) {
			t.Errorf("%s: %s: %s, expected %s naming %q", test.what, answer.Code(), answer.Message(), test.code, test.text)
		}
	}
	if left := s.leftovers(); len(left) != 4 { // the supervisor, there with its shim and its runtime's state
		t.Errorf("left over: %q", left)
	}
}
