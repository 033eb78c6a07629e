package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// Config is what a supervisor is made with.
type Config struct {
	Host     *runtime.Host
	Workers  int    // containers that start at the same time
	Version  string // "1.2.3", for GetServerVersion
	Revision string
	Journal  JournalLimits
	Logger   *slog.Logger
}

// JournalLimits bound the journal on disk; zeros mean the defaults.
type JournalLimits struct {
	Events int   // default: 64Ki
	Bytes  int64 // default: 16 MiB
}

const (
	defaultJournalEvents = 64 << 10
	defaultJournalBytes  = 16 << 20
)

// keptExits is how many exited added processes a container keeps for Wait and
// State. What exited first is forgotten first.
const keptExits = 64

// Supervisor owns containers. Of its fields only what says so is changed after
// Open; the table of containers belongs to the loop.
type Supervisor struct {
	api.UnimplementedSupervisorServer

	config  Config
	host    *runtime.Host
	logger  *slog.Logger
	machine *api.Machine
	lock    *os.File
	journal *journal

	tasks      chan task
	changes    chan change
	startTasks chan startTask
	stirred    chan struct{} // capacity 1: something has happened, see rest.go
	oomTurn    sync.Mutex    // see watchOOM
	queues     queues
	burst      burst
	metrics    metrics

	life context.Context // work's context: a request that its client gives up goes on
	stop context.CancelFunc
	own  sync.WaitGroup // every goroutine that ends with life
}

// Open takes the state directory, which one supervisor has at a time, and reads
// the journal.
func Open(config Config) (s *Supervisor, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	if config.Workers < 1 {
		return nil, errdefs.InvalidArgument.Errorf("workers: %d, expected at least 1", config.Workers)
	}
	if events := config.Journal.Events; events != 0 && events < segmentShare {
		return nil, errdefs.InvalidArgument.Errorf("journal events: %d, expected at least %d, or 0 for the default", events, segmentShare)
	}
	if config.Journal.Events == 0 {
		config.Journal.Events = defaultJournalEvents
	}
	if config.Journal.Bytes == 0 {
		config.Journal.Bytes = defaultJournalBytes
	}
	if err := runtime.BecomeSubreaper(); err != nil {
		return nil, fmt.Errorf("becoming a subreaper: %w", err)
	}
	state := config.Host.StateDir
	if err := makePrivate(state); err != nil {
		return nil, err
	}
	lock, err := lockDir(state)
	if err != nil {
		return nil, err
	}
	undo.Add("unlock the state directory", func(context.Context) error { return lock.Close() })
	journal, err := openJournal(filepath.Join(state, ".journal"), limits{config.Journal.Events, config.Journal.Bytes}, config.Logger)
	if err != nil {
		return nil, err
	}
	undo.Add("close the journal", func(context.Context) error { return journal.close() })
	machine, err := readMachine()
	if err != nil {
		return nil, err
	}
	s = &Supervisor{
		config: config, host: config.Host, logger: config.Logger, machine: machine, lock: lock, journal: journal,
		tasks: make(chan task, 64), changes: make(chan change, 64), startTasks: make(chan startTask),
		stirred: make(chan struct{}, 1), burst: burst{crowded: &config.Host.Crowded},
	}
	s.host.Reserve = runtime.NewReserve()
	s.life, s.stop = context.WithCancel(context.Background())
	s.begin()
	return s, nil
}

// begin starts the loop, the recorder and the workers.
func (s *Supervisor) begin() {
	s.own.Go(s.loop)
	s.own.Go(s.recorder)
	s.own.Go(func() { s.host.Reserve.Keep(s.life, s.host) })
	for range s.config.Workers {
		s.own.Go(s.worker)
	}
}

// Close waits, for at most grace, for work that is under way and ends what the
// supervisor runs. Containers and shims go on.
func (s *Supervisor) Close(grace time.Duration) error {
	if !s.queues.drain(grace) {
		s.logger.Warn("work is still under way; the next supervisor finds what it leaves", "waited", grace)
	}
	s.stop()
	s.own.Wait()
	err := s.journal.close()
	s.lock.Close()
	return err
}

// task is work for the loop. It must not block.
type task func(*table)

// loop owns the table of containers. Everything that reads or changes it is a
// task, and no task waits for anything.
func (s *Supervisor) loop() {
	t := &table{containers: map[string]*container{}, seq: s.journal.last()}
	for {
		select {
		case run := <-s.tasks:
			run(t)
		case <-s.life.Done():
			return
		}
	}
}

// errStopping answers what comes after the end.
func errStopping() error { return errdefs.Unavailable.Errorf("the supervisor is stopping") }

// post hands run to the loop.
func (s *Supervisor) post(run task) error {
	select {
	case s.tasks <- run:
		return nil
	case <-s.life.Done():
		return errStopping()
	}
}

// ask runs a task on the loop and returns its error.
func (s *Supervisor) ask(run func(*table) error) error {
	answer := make(chan error, 1)
	if err := s.post(func(t *table) { answer <- run(t) }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-s.life.Done():
		return errStopping()
	}
}

// do puts work on the queue of container id, by way of the loop, and waits for
// its result. If ctx ends first the work goes on to its end without us.
func do[Response any](ctx context.Context, s *Supervisor, id string, mode mode, work func(context.Context) (Response, error)) (Response, error) {
	type result struct {
		response Response
		err      error
	}
	results := make(chan result, 1)
	run := func() {
		var r result
		defer func() { results <- r }()
		defer s.caught(&r.err)
		r.response, r.err = work(s.life)
	}
	err := s.post(func(*table) { s.queues.put(id, mode, run) })
	if err != nil {
		return *new(Response), err
	}
	select {
	case r := <-results:
		return r.response, r.err
	case <-ctx.Done():
		return *new(Response), ctx.Err()
	case <-s.life.Done():
		return *new(Response), errStopping()
	}
}

// caught turns a panic into an error: one bad request must not end the
// supervision of all others.
func (s *Supervisor) caught(err *error) {
	if panicked := recover(); panicked != nil {
		s.logger.Error("a request panicked", "panic", panicked, "stack", string(debug.Stack()))
		*err = errdefs.Internal.Errorf("the supervisor panicked: %v", panicked)
	}
}

// makePrivate makes dir, or makes sure that nobody else may enter it.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("closing the state directory to others: %w", err)
	}
	return nil
}

// lockWait is how long lockDir tries, for who starts a supervisor before the last
// one is quite gone.
const lockWait = 2 * time.Second

// lockDir takes dir for this process. The kernel gives it back at its death. A lock
// of flock(2) would also be the children's: one that is forked when the supervisor
// is killed would hold it until its exec, tens of milliseconds where much runs.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	late := time.Now().Add(lockWait)
	err = unix.FcntlFlock(file.Fd(), unix.F_SETLK, &whole)
	for isLocked(err) && time.Now().Before(late) {
		time.Sleep(5 * time.Millisecond) // F_SETLKW knows no time limit
		err = unix.FcntlFlock(file.Fd(), unix.F_SETLK, &whole)
	}
	if err == nil {
		return file, nil
	}
	file.Close()
	if isLocked(err) {
		return nil, errdefs.FailedPrecondition.Errorf("another supervisor has the state directory %s: %w", dir, err)
	}
	return nil, fmt.Errorf("locking the state directory %s: %w", dir, err)
}

// isLocked recognizes a lock that another process has (fcntl(2) names both).
func isLocked(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES)
}

func readMachine() (*api.Machine, error) {
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return nil, fmt.Errorf("asking for the size of memory: %w", err)
	}
	return &api.Machine{Cpus: uint32(goruntime.NumCPU()), Memory: memory.Totalram * uint64(memory.Unit)}, nil
}
