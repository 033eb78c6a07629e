package supervisor_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	supervisor "github.com/engined/engined/proto/supervisor/v1"
)

// oneContainer answers what the example asks, as a supervisor with one container would.
type oneContainer struct {
	supervisor.UnimplementedSupervisorServer
}

func (oneContainer) State(context.Context, *supervisor.StateRequest) (*supervisor.StateResponse, error) {
	return &supervisor.StateResponse{Seq: 2, Containers: []*supervisor.Container{{Id: "web", Status: "running"}}}, nil
}

func (oneContainer) Events(request *supervisor.EventsRequest, stream grpc.ServerStreamingServer[supervisor.Event]) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	if request.AfterSeq < 3 {
		return stream.Send(&supervisor.Event{Seq: 3, Type: "exit", Id: "web", Status: 4, Exit: &supervisor.Exit{Status: 4}})
	}
	<-stream.Context().Done()
	return nil
}

// serve serves oneContainer; a real supervisor is at unix:///run/engined/supervisor.sock.
func serve() (address string, stop func()) {
	dir, err := os.MkdirTemp("", "supervisor-example")
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "s.sock"))
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	supervisor.RegisterSupervisorServer(server, oneContainer{})
	go server.Serve(listener)
	return "unix://" + listener.Addr().String(), func() {
		server.Stop()
		os.RemoveAll(dir)
	}
}

// A client looks at what is, then hears of all that happens after it, once,
// also when the supervisor is restarted meanwhile.
func ExampleClient() {
	address, stop := serve()
	defer stop()
	ctx := context.Background()
	client, err := supervisor.Dial(ctx, address)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	state, err := client.State(ctx, &supervisor.StateRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, container := range state.Containers {
		fmt.Println(container.Id, container.Status)
	}
	for event, err := range client.EventsAfter(ctx, state.Seq) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(event.Seq, event.Type, event.Id, event.Exit.GetStatus())
		if event.Type == "exit" {
			return
		}
	}
	// Output:
	// web running
	// 3 exit web 4
}
