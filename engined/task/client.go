package task

import (
	"context"
	"time"

	supervisor "github.com/engined/engined/proto/supervisor/v1"
	"google.golang.org/grpc"
)

// patience is how long a call waits for a supervisor that is restarting.
const patience = 10 * time.Second

// Client calls one supervisor. It is safe for concurrent use.
type Client struct {
	rpc    *supervisor.Client
	relays relays
}

// Dial connects to the supervisor at address, unix:///path or tcp://host:port.
func Dial(ctx context.Context, address string) (*Client, error) {
	rpc, err := supervisor.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &Client{rpc: rpc}, nil
}

// Close ends the connection to the supervisor and waits for the relays, whose
// clients it cuts off.
func (c *Client) Close() error {
	c.relays.close()
	return c.rpc.Close()
}

// Version is the supervisor's, as "1.2.3", and its source revision.
func (c *Client) Version(ctx context.Context) (version, revision string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := c.rpc.GetServerVersion(ctx, &supervisor.GetServerVersionRequest{}, wait)
	if err != nil {
		return "", "", err
	}
	return versionText(answer), answer.GetRevision(), nil
}

// wait makes a call wait until the connection stands. What was sent and lost
// is never sent again.
var wait = grpc.WaitForReady(true)

// Container is a task as the supervisor sees it.
type Container struct {
	ID        string
	Status    string // created, running, paused or stopped
	Socket    string // the shim's, for Attach
	Processes []Process
	Pids      []int // every process in the cgroup; only from State of one id
}

// Process is a container's first process or an added one.
type Process struct {
	ID      string    // shim.Init or the name given to Exec
	Pid     int       // 0: not running
	Started time.Time // zero: not started
	Exit    *Exit     // nil: not exited
}

// Exit says how a process ended.
type Exit struct {
	Status    int // 0-255; 128 + Signal if a signal ended it
	Signal    int
	Time      time.Time
	OOMKilled bool
	Reason    string // why, where the status alone misleads
}

// Process returns the process of that name, or nil.
func (c *Container) Process(id string) *Process {
	for i := range c.Processes {
		if c.Processes[i].ID == id {
			return &c.Processes[i]
		}
	}
	return nil
}

// Snapshot is all tasks at one instant.
type Snapshot struct {
	Seq        uint64 // of the last event that it includes
	Containers []Container
}

// Event types, as the supervisor names them.
const (
	EventExit     = "exit"
	EventOOM      = "oom"
	EventPause    = "pause"
	EventResume   = "resume"
	EventSnapshot = "snapshot"
)

// Event is one thing that happened, numbered.
type Event struct {
	Seq      uint64
	Type     string
	ID       string
	Process  string // exit
	Time     time.Time
	Exit     *Exit     // exit
	Snapshot *Snapshot // snapshot: events before Seq are gone
}
