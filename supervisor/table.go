package supervisor

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// A container's status, as State says it.
const (
	statusCreated = "created"
	statusRunning = "running"
	statusPaused  = "paused"
	statusStopped = "stopped"
)

// table is all that State knows. It belongs to the loop; the messages in it are
// never changed once made, so that answers can hold them outside of the loop.
type table struct {
	containers map[string]*container
	seq        uint64 // of the last event that the table includes
}

// container is one container that is created and not yet deleted.
type container struct {
	handle    *runtime.Container
	status    string
	processes []*process     // init first
	oomKills  uint64         // recorded before this supervisor began
	message   *api.Container // nil: to be made anew
	encoded   *encoded       // of a message; nil until asked for
}

// process is one process of a container.
type process struct {
	name     string
	message  *api.Process
	starting bool // an AddProcess is under way: no exit is recorded before its start is
	held     bool // a StartContainer is under way: the same
	exitSeen bool // it exited meanwhile
	orphan   bool // the AddProcess was an earlier supervisor's: nobody waits for it
	leaving  bool // it is being forgotten

	exit *api.Exit     // set before done is closed, never after
	done chan struct{} // closed when exit is set, or when it has not come to run after all
}

func newProcess(name string, spec *specs.Process, request runtime.Request) *process {
	return &process{name: name, message: describe(name, spec, request), done: make(chan struct{})}
}

// has reports whether c is there still: its id may be another's by now.
func (t *table) has(c *container) bool { return t.containers[c.handle.ID()] == c }

// find returns container id.
func (t *table) find(id string) (*container, error) {
	if id == "" {
		return nil, errdefs.InvalidArgument.Errorf("id: empty, expected a container's id")
	}
	c, known := t.containers[id]
	if !known {
		return nil, errdefs.NotFound.Coded(errdefs.NoSuchContainer, id, "no such container: %s", id)
	}
	return c, nil
}

// findProcess returns a process of container id; "" is init.
func (t *table) findProcess(id, name string) (*container, *process, error) {
	c, err := t.find(id)
	if err != nil {
		return nil, nil, err
	}
	if name == "" {
		name = runtime.Init
	}
	p := c.process(name)
	if p == nil {
		return nil, nil, noProcess(id, name)
	}
	return c, p, nil
}

func noProcess(id, name string) error {
	return errdefs.NotFound.Coded(errdefs.NoSuchExec, name, "container %s has no process %s", id, name)
}

// all returns every container's message, by id.
func (t *table) all() []*api.Container {
	messages := make([]*api.Container, 0, len(t.containers))
	for _, c := range t.containers {
		messages = append(messages, c.view())
	}
	return messages
}

func (c *container) process(name string) *process {
	for _, p := range c.processes {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (c *container) init() *process { return c.processes[0] }

// drop takes a process off the list: one that has exited, or has failed to start.
func (c *container) drop(name string) {
	if p := c.process(name); p != nil && p.exit == nil {
		close(p.done)
	}
	c.processes = slices.DeleteFunc(slices.Clone(c.processes), func(p *process) bool { return p.name == name })
	c.message = nil
}

// dropOrphans takes off the list what has never come to start.
func (c *container) dropOrphans() {
	for _, p := range slices.Clone(c.processes) {
		if p.orphan {
			c.drop(p.name)
		}
	}
}

// started notes that p runs.
func (c *container) started(p *process, started runtime.Started) {
	message := clone(p.message)
	message.SystemPid = uint32(started.Pid)
	message.StartedAt = timestamppb.New(started.Time)
	p.message, p.starting, c.message = message, false, nil
}

// exited notes that p has ended.
func (c *container) exited(p *process, exit *api.Exit) {
	message := clone(p.message)
	message.SystemPid, message.Exit = 0, exit
	p.message, p.exit, c.message = message, exit, nil
	close(p.done)
	if p == c.init() {
		c.status = statusStopped
	}
}

// set notes a new status.
func (c *container) set(status string) { c.status, c.message = status, nil }

// view returns the container as State shows it.
func (c *container) view() *api.Container {
	if c.message != nil {
		return c.message
	}
	record := c.handle.Record()
	message := &api.Container{
		Id: record.ID, BundlePath: record.Bundle, Status: c.status, Labels: record.Labels, Runtime: record.Runtime,
		ShimSocket: c.handle.Socket(), ShimPid: uint32(c.handle.ShimPid()),
	}
	for _, p := range c.processes {
		if !p.starting {
			message.Processes = append(message.Processes, p.message)
		}
	}
	c.message = message
	return message
}

// oldestExited returns the added process whose exit is the longest ago when more than
// keep have exited and are not being forgotten, or nil.
func (c *container) oldestExited(keep int) *process {
	exited := 0
	var oldest *process
	for _, p := range c.processes[1:] {
		if p.exit == nil || p.leaving {
			continue
		}
		exited++
		if oldest == nil || p.exit.ExitedAt.AsTime().Before(oldest.exit.ExitedAt.AsTime()) {
			oldest = p
		}
	}
	if exited <= keep {
		return nil
	}
	return oldest
}

// needRunning says why the container is not one that runs.
func (c *container) needRunning(id string) error {
	switch c.status {
	case statusRunning:
		return nil
	case statusPaused:
		return errdefs.FailedPrecondition.Coded(errdefs.Paused, id, "container %s is paused", id)
	}
	return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, id, "container %s is not running: it is %s", id, c.status)
}
