package container

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/network"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/shim"
)

// Images is what this package needs of images.
type Images interface {
	Resolve(ctx context.Context, ref string) (image.Image, error)
	Means(ctx context.Context, refs []string) (map[string]digest.Digest, error)
	Hold(ctx context.Context, id digest.Digest, owner string) error
	Release(ctx context.Context, owner string) error
	Commit(ctx context.Context, req image.CommitRequest) (id digest.Digest, reference string, err error)
}

// Layers is what this package needs of layers: a writable one per container.
type Layers interface {
	Create(ctx context.Context, id string, parent digest.Digest, opts layer.CreateOptions) error
	Mount(ctx context.Context, id string) (rootfs string, err error)
	Unmount(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	Size(ctx context.Context, id string) (rw int64, err error)
	Describe(ctx context.Context, id string) (map[string]string, error)
	WriteTree(ctx context.Context, id string, to io.Writer) error
	Name() string
}

// Networks is what this package needs of networks.
type Networks interface {
	Default() apicontainer.NetworkMode
	Check(mode apicontainer.NetworkMode, endpoints map[string]*apinetwork.EndpointSettings) error
	Allocate(ctx context.Context, req network.Request) (network.Sandbox, error)
	Release(ctx context.Context, containerID string) error
	Reconcile(ctx context.Context, running map[string]bool) error
}

// Tasks is what this package needs of the supervisor.
type Tasks interface {
	Create(ctx context.Context, req task.CreateRequest) (task.Container, error)
	Delete(ctx context.Context, id string, force bool) error
	Exec(ctx context.Context, req task.ExecRequest) (pid int, err error)
	Forget(ctx context.Context, id, process string) error
	Signal(ctx context.Context, id, process string, signal syscall.Signal) error
	Resize(ctx context.Context, id, process string, width, height uint16) error
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	Snapshot(ctx context.Context) (task.Snapshot, error)
	State(ctx context.Context, id string) (task.Container, error)
	EventsAfter(ctx context.Context, seq uint64) iter.Seq2[task.Event, error]
	Attach(ctx context.Context, socket string, req shim.AttachRequest, conn net.Conn) error
}

// Deps is what a Service works with.
type Deps struct {
	DB       *store.DB
	Events   *events.Log
	Images   Images
	Layers   Layers
	Networks Networks
	Tasks    Tasks

	Root     string // data; containers/ and volumes/ are this package's
	ExecRoot string // per boot; containers/ is this package's
	Logger   *slog.Logger

	CgroupV2     bool   // the machine has no v1 controllers: cgroup namespaces are private
	AppArmor     bool   // the machine enforces AppArmor
	CgroupParent string // default for HostConfig.CgroupParent
	StopTimeout  time.Duration
	LogConfig    apicontainer.LogConfig // default for HostConfig.LogConfig
}

// defaultStopTimeout is how long a stop waits before KILL.
const defaultStopTimeout = 10 * time.Second

// Service keeps all containers of one engined. It is safe for concurrent use.
type Service struct {
	Deps
	rows  rows
	index *index
	execs execs

	creations creations
	fillings  fillings

	unread map[string]bool // ids of containers whose records cannot be read; Open's alone to write

	ready     chan struct{} // closed when reconciled
	ending    chan struct{} // closed when Run is to end
	following followers     // teardowns and removals after exits
	recording followers     // attempts to record an exit that could not be written
}

// container is a container's live part.
type container struct {
	id     string
	record atomic.Pointer[Record]
	turn   turn
	oom    atomic.Bool // told of the present run

	// writing serialises changes of the record. It is held over the database,
	// never over another process.
	writing   sync.Mutex
	starting  bool       // a start waits for the supervisor's answer; guarded by writing
	early     *task.Exit // of the run whose start is not answered yet; guarded by writing
	unwritten *task.Exit // of the run, which could not be written; guarded by writing

	mu      sync.Mutex // guards what follows
	waiters map[*waiter]struct{}
	parked  []*parking
}

// Open loads the containers. Nothing is done to them before Run.
func Open(ctx context.Context, deps Deps) (*Service, error) {
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	if deps.StopTimeout == 0 {
		deps.StopTimeout = defaultStopTimeout
	}
	s := &Service{Deps: deps, rows: rows{deps.DB}, index: newIndex(), unread: make(map[string]bool), ready: make(chan struct{}), ending: make(chan struct{})}
	s.execs.byID = make(map[string]*command)
	s.creations.records = make(map[string]*Record)
	s.fillings.done = make(map[string]chan struct{})
	if err := deps.DB.Migrate(ctx, "container", schema); err != nil {
		return nil, err
	}
	for _, dir := range []string{filepath.Join(deps.Root, "containers"), filepath.Join(deps.Root, "volumes"), filepath.Join(deps.ExecRoot, "containers")} {
		if err := os.MkdirAll(dir, 0o710); err != nil {
			return nil, fmt.Errorf("opening containers: %w", err)
		}
	}
	records, err := s.rows.load(ctx, func(id string, err error) {
		s.unread[id] = true
		deps.Logger.Error("a container's record cannot be read; the container is left alone", "container", id, "error", err)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		if err := s.index.reserve(r.Name, r.ID); err != nil {
			return nil, fmt.Errorf("opening containers: %w", err)
		}
		s.index.add(newContainer(r))
	}
	return s, nil
}

func newContainer(r *Record) *container {
	c := &container{id: r.ID, waiters: make(map[*waiter]struct{})}
	c.record.Store(r)
	return c
}

// Ready is closed when the containers are reconciled with what runs.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Counts says how many containers run, are paused, and are neither.
func (s *Service) Counts() (up, frozen, down int) {
	for _, c := range s.index.all() {
		switch c.record.Load().Phase() {
		case running:
			up++
		case paused:
			frozen++
		default:
			down++
		}
	}
	return up, frozen, down
}

// change makes a changed copy of the record, on disk, then in memory.
func (s *Service) change(ctx context.Context, c *container, do func(*Record) error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return s.changeLocked(ctx, c, do)
}

func (s *Service) changeLocked(ctx context.Context, c *container, do func(*Record) error) error {
	changed := *c.record.Load()
	if err := do(&changed); err != nil {
		return err
	}
	if err := s.rows.save(ctx, &changed); err != nil {
		return err
	}
	c.record.Store(&changed)
	return nil
}

// dataDir holds what a container keeps between runs.
func (s *Service) dataDir(id string) string { return filepath.Join(s.Root, "containers", id) }

// runDir is there from before a start acquires anything until after all of it
// is given back.
func (s *Service) runDir(id string) string { return filepath.Join(s.ExecRoot, "containers", id) }

func (s *Service) logPath(id string) string { return filepath.Join(s.dataDir(id), id+"-json.log") }

// verbTimeout bounds what a verb does once it has begun: it is not given up
// because its client has left, nor does it hang for ever.
const verbTimeout = 2 * time.Minute

// noteTimeout bounds the writing down of how a verb ended.
const noteTimeout = 30 * time.Second

// noting returns the context for that: the verb's own time may be up, which may
// be what there is to note.
func noting(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
}

// begun returns the context of a verb that has begun.
func begun(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), verbTimeout)
}
