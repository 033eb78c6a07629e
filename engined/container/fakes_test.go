package container

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	apicontainer "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/events"
	"github.com/engined/engined/engined/image"
	"github.com/engined/engined/engined/layer"
	"github.com/engined/engined/engined/network"
	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// world is a Service with everything around it made up.
type world struct {
	*Service
	t        *testing.T
	images   *fakeImages
	layers   *fakeLayers
	networks *fakeNetworks
	tasks    *fakeTasks
	end      context.CancelFunc
	begun    time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, begun: time.Now()}
	w.images = &fakeImages{config: dockerspec.DockerOCIImageConfig{}, held: map[string]bool{}}
	w.layers = &fakeLayers{root: t.TempDir(), made: map[string]bool{}, mounted: map[string]bool{}}
	w.networks = &fakeNetworks{allocated: map[string]bool{}}
	w.tasks = newFakeTasks()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	w.open(Deps{DB: db, Events: events.New(), Images: w.images, Layers: w.layers, Networks: w.networks, Tasks: w.tasks,
		Root: t.TempDir(), ExecRoot: t.TempDir()})
	t.Cleanup(func() { w.end() })
	return w
}

// open opens a Service without running it.
func (w *world) open(deps Deps) {
	w.t.Helper()
	s, err := Open(w.t.Context(), deps)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service, w.end = s, func() {}
}

// run runs it and waits until it is ready.
func (w *world) run() *world {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	service := w.Service
	go func() { done <- service.Run(ctx) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error("Run:", err)
		}
	})
	select {
	case <-service.Ready():
	case <-time.After(20 * time.Second):
		w.t.Fatal("not ready")
	}
	return w
}

// reopen is a restart of engined.
func (w *world) reopen() *world {
	w.t.Helper()
	w.end()
	w.open(w.Deps)
	return w.run()
}

func (w *world) create(name string, adjust ...func(*CreateRequest)) string {
	w.t.Helper()
	req := CreateRequest{Name: name, Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"sleep", "9"}}, HostConfig: &apicontainer.HostConfig{}}
	for _, a := range adjust {
		a(&req)
	}
	made, err := w.Create(w.t.Context(), req)
	if err != nil {
		w.t.Fatal("create:", err)
	}
	return made.ID
}

func (w *world) started(name string, adjust ...func(*CreateRequest)) string {
	w.t.Helper()
	id := w.create(name, adjust...)
	if err := w.Start(w.t.Context(), id); err != nil {
		w.t.Fatal("start:", err)
	}
	return id
}

func (w *world) phase(id string) Phase {
	c, err := w.index.find(id)
	if err != nil {
		return gone
	}
	return c.record.Load().Phase()
}

// waitFor waits for a container's end.
func (w *world) waitFor(id string, condition apicontainer.WaitCondition) <-chan apicontainer.WaitResponse {
	w.t.Helper()
	result, err := w.Wait(w.t.Context(), id, condition)
	if err != nil {
		w.t.Fatal("wait:", err)
	}
	return result
}

func (w *world) receive(result <-chan apicontainer.WaitResponse) int {
	w.t.Helper()
	select {
	case r := <-result:
		return int(r.StatusCode)
	case <-time.After(20 * time.Second):
		w.t.Fatal("the wait does not end")
		return -1
	}
}

// quiet waits for what goes on in the background.
func (w *world) quiet() { w.following.Wait() }

// clean says what is acquired and should not be.
func (w *world) clean(alive ...string) {
	w.t.Helper()
	w.quiet()
	for what, have := range map[string][]string{
		"mounts": keys(&w.layers.mu, w.layers.mounted), "networks": keys(&w.networks.mu, w.networks.allocated), "tasks": w.tasks.ids(),
	} {
		for _, id := range have {
			if !slices.Contains(alive, id) {
				w.t.Errorf("%s of %s are left", what, id)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(w.ExecRoot, "containers"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, entry := range entries {
		if !slices.Contains(alive, entry.Name()) {
			w.t.Errorf("run directory of %s is left", entry.Name())
		}
	}
}

func keys(mu *sync.Mutex, m map[string]bool) []string {
	mu.Lock()
	defer mu.Unlock()
	return slices.Collect(maps.Keys(m))
}

// told lists the actions of the events about a container so far.
func (w *world) told(id string) (actions []string) {
	w.t.Helper()
	messages, err := w.Events.Subscribe(w.t.Context(), w.begun, time.Now(), func(m apievents.Message) bool { return m.Actor.ID == id })
	if err != nil {
		w.t.Fatal(err)
	}
	for m := range messages {
		actions = append(actions, string(m.Action))
	}
	return actions
}

type fakeImages struct {
	config dockerspec.DockerOCIImageConfig
	mu     sync.Mutex
	held   map[string]bool
	fail   error

	untagged bool // names mean nothing

	committed  []image.CommitRequest
	committing func() // called by Commit
}

var busybox = digest.FromString("busybox")

func (f *fakeImages) Resolve(_ context.Context, ref string) (image.Image, error) {
	if ref != "busybox" && ref != busybox.String() {
		return image.Image{}, errdefs.NotFound.Coded(errdefs.NoSuchImage, ref, "No such image: %s", ref)
	}
	return image.Image{ID: busybox, Config: dockerspec.DockerOCIImage{Config: f.config}}, nil
}

func (f *fakeImages) Means(ctx context.Context, refs []string) (map[string]digest.Digest, error) {
	means := map[string]digest.Digest{}
	for _, ref := range refs {
		if found, err := f.Resolve(ctx, ref); err == nil && !f.untagged {
			means[ref] = found.ID
		}
	}
	return means, nil
}

func (f *fakeImages) Hold(_ context.Context, _ digest.Digest, owner string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[owner] = true
	return f.fail
}

func (f *fakeImages) Commit(_ context.Context, req image.CommitRequest) (digest.Digest, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.committed = append(f.committed, req)
	if f.committing != nil {
		f.committing()
	}
	return digest.FromString(req.Container), req.Repository + ":" + req.Tag, nil
}

func (f *fakeImages) Release(_ context.Context, owner string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, owner)
	return nil
}

type fakeLayers struct {
	root    string
	mu      sync.Mutex
	made    map[string]bool
	mounted map[string]bool
	fail    error // of Create and Mount
	stuck   error // of Unmount and Remove

	creating func()                    // called by Create
	slow     func(ctx context.Context) // called by Mount and Remove
}

func (f *fakeLayers) Create(_ context.Context, id string, _ digest.Digest, _ layer.CreateOptions) error {
	if f.creating != nil {
		f.creating()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.made[id] = true
	}
	return f.fail
}

func (f *fakeLayers) Mount(ctx context.Context, id string) (string, error) {
	if f.slow != nil {
		f.slow(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return "", f.fail
	}
	f.mounted[id] = true
	dir := filepath.Join(f.root, id)
	return dir, os.MkdirAll(dir, 0o755)
}

func (f *fakeLayers) Unmount(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stuck != nil {
		return f.stuck
	}
	delete(f.mounted, id)
	return nil
}

func (f *fakeLayers) Remove(ctx context.Context, id string) error {
	if f.slow != nil {
		f.slow(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stuck != nil {
		return f.stuck
	}
	delete(f.mounted, id)
	delete(f.made, id)
	return nil
}

func (f *fakeLayers) WriteTree(_ context.Context, id string, to io.Writer) error {
	_, err := io.WriteString(to, "the tree of "+id)
	return err
}
func (f *fakeLayers) Size(context.Context, string) (int64, error)                 { return 7, nil }
func (f *fakeLayers) Describe(context.Context, string) (map[string]string, error) { return nil, nil }
func (f *fakeLayers) Name() string                                                { return "fake" }

type fakeNetworks struct {
	mu        sync.Mutex
	allocated map[string]bool
	fail      error
	kept      map[string]bool // by Reconcile
}

func (f *fakeNetworks) Default() apicontainer.NetworkMode { return apinetwork.NetworkBridge }

func (f *fakeNetworks) Check(apicontainer.NetworkMode, map[string]*apinetwork.EndpointSettings) error {
	return nil
}

func (f *fakeNetworks) Allocate(_ context.Context, req network.Request) (network.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return network.Sandbox{}, f.fail
	}
	f.allocated[req.ContainerID] = true
	return network.Sandbox{Path: "/netns/" + req.ContainerID}, nil
}

func (f *fakeNetworks) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.allocated, id)
	return nil
}

func (f *fakeNetworks) Reconcile(_ context.Context, up map[string]bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = up
	for id := range f.allocated {
		if !up[id] {
			delete(f.allocated, id)
		}
	}
	return nil
}

// fakeTasks is a supervisor in memory: with numbered events and a snapshot.
type fakeTasks struct {
	mu       sync.Mutex
	seq      uint64
	events   []task.Event
	more     chan struct{} // closed and replaced when events grows
	tasks    map[string]*task.Container
	paused   map[string]bool
	attached []shim.AttachRequest
	conns    []net.Conn
	signals  []syscall.Signal
	last     task.CreateRequest
	execs    []task.ExecRequest
	forgot   []string

	onCreate func(id string) error // before the answer
	onExec   func(req task.ExecRequest) error
	onSignal func(id string, s syscall.Signal)
}

func newFakeTasks() *fakeTasks {
	f := &fakeTasks{more: make(chan struct{}), tasks: map[string]*task.Container{}, paused: map[string]bool{}}
	f.onSignal = func(id string, s syscall.Signal) {
		if s == syscall.SIGKILL {
			f.exit(id, 137)
		}
	}
	return f
}

func (f *fakeTasks) emit(e task.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emitLocked(e)
}

func (f *fakeTasks) emitLocked(e task.Event) {
	f.seq++
	e.Seq, e.Time = f.seq, time.Now()
	f.events = append(f.events, e)
	close(f.more)
	f.more = make(chan struct{})
}

// exit ends a task's first process.
func (f *fakeTasks) exit(id string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tasks[id]
	if t == nil || t.Processes[0].Exit != nil {
		return
	}
	exit := task.Exit{Status: status, Time: time.Now()}
	t.Status, t.Processes[0].Exit, t.Processes[0].Pid = "stopped", &exit, 0
	f.emitLocked(task.Event{Type: task.EventExit, ID: id, Process: initProcess, Exit: &exit})
}

func (f *fakeTasks) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.tasks))
}

func (f *fakeTasks) Create(ctx context.Context, req task.CreateRequest) (task.Container, error) {
	if _, err := os.Stat(filepath.Join(req.Bundle, "config.json")); err != nil {
		return task.Container{}, err
	}
	f.mu.Lock()
	f.last = req
	if f.tasks[req.ID] != nil {
		f.mu.Unlock()
		return task.Container{}, errdefs.AlreadyExists.Errorf("task %s exists", req.ID)
	}
	made := &task.Container{ID: req.ID, Status: "running", Socket: "/shim/" + req.ID,
		Processes: []task.Process{{ID: initProcess, Pid: 4242, Started: time.Now()}}}
	f.tasks[req.ID] = made
	answer := *made
	answer.Processes = slices.Clone(made.Processes)
	hook := f.onCreate
	f.mu.Unlock()
	if hook != nil {
		if err := hook(req.ID); err != nil {
			f.mu.Lock()
			delete(f.tasks, req.ID)
			f.mu.Unlock()
			return task.Container{}, err
		}
	}
	return answer, nil
}

func (f *fakeTasks) Delete(_ context.Context, id string, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tasks[id] == nil {
		return errdefs.NotFound.Errorf("no task %s", id)
	}
	delete(f.tasks, id)
	return nil
}

func (f *fakeTasks) Exec(_ context.Context, req task.ExecRequest) (int, error) {
	f.mu.Lock()
	f.execs = append(f.execs, req)
	hook := f.onExec
	f.mu.Unlock()
	if hook != nil {
		if err := hook(req); err != nil {
			return 0, err
		}
	}
	return 4343, nil
}

func (f *fakeTasks) Forget(_ context.Context, _, process string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, process)
	return nil
}

func (f *fakeTasks) Signal(_ context.Context, id, process string, s syscall.Signal) error {
	f.mu.Lock()
	t := f.tasks[id]
	f.signals = append(f.signals, s)
	hook := f.onSignal
	f.mu.Unlock()
	if t == nil {
		return errdefs.NotFound.Coded(errdefs.NoSuchContainer, id, "no task %s", id)
	}
	if hook != nil {
		hook(id, s)
	}
	return nil
}

func (f *fakeTasks) Resize(context.Context, string, string, uint16, uint16) error { return nil }

func (f *fakeTasks) Pause(_ context.Context, id string) error {
	f.setStatus(id, "paused")
	f.emit(task.Event{Type: task.EventPause, ID: id, Process: initProcess})
	return nil
}

func (f *fakeTasks) Resume(_ context.Context, id string) error {
	f.setStatus(id, "running")
	f.emit(task.Event{Type: task.EventResume, ID: id, Process: initProcess})
	return nil
}

func (f *fakeTasks) setStatus(id, status string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tasks[id]; t != nil && t.Status != "stopped" {
		t.Status = status
	}
}

func (f *fakeTasks) Snapshot(context.Context) (task.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshotLocked(), nil
}

func (f *fakeTasks) snapshotLocked() task.Snapshot {
	s := task.Snapshot{Seq: f.seq}
	for _, t := range f.tasks {
		c := *t
		c.Processes = slices.Clone(t.Processes)
		s.Containers = append(s.Containers, c)
	}
	return s
}

func (f *fakeTasks) State(_ context.Context, id string) (task.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tasks[id]
	if t == nil {
		return task.Container{}, errdefs.NotFound.Errorf("no task %s", id)
	}
	c := *t
	c.Pids = []int{os.Getpid()}
	return c, nil
}

func (f *fakeTasks) EventsAfter(ctx context.Context, seq uint64) iter.Seq2[task.Event, error] {
	return func(yield func(task.Event, error) bool) {
		for {
			f.mu.Lock()
			var fresh []task.Event
			for _, e := range f.events {
				if e.Seq > seq {
					fresh = append(fresh, e)
				}
			}
			more := f.more
			f.mu.Unlock()
			for _, e := range fresh {
				seq = e.Seq
				if !yield(e, nil) {
					return
				}
			}
			select {
			case <-more:
			case <-ctx.Done():
				yield(task.Event{}, ctx.Err())
				return
			}
		}
	}
}

func (f *fakeTasks) Attach(_ context.Context, socket string, req shim.AttachRequest, conn net.Conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = append(f.attached, req)
	f.conns = append(f.conns, conn)
	return nil
}

var errFake = errors.New("made to fail")

func breakRow(ctx context.Context, w *world, id string) error {
	return w.DB.Update(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE containers SET document = '{"ID": 7' WHERE id = ?`, id)
		return err
	})
}
