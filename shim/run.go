package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/heap"
	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// Config is the shim's command line. Its working directory is the container's.
type Config struct {
	ID      string
	Bundle  string // absolute path
	Runtime string // absolute path
}

// Shim is the state of one shim. All of it belongs to the goroutine in Run.
type Shim struct {
	Config
	*loop
	dir         string // absolute path of the container's directory
	runtimeArgs []string
	self        proto.Self
	memory      *memory

	listener   *source
	peers      map[*peer]struct{}
	children   map[int]*child // by pid
	processes  map[string]*process
	sinks      map[*sink]struct{} // clients and fifos, until their queues are sent
	calls      int                // of the runtime, under way
	deleting   bool
	askers     []func(error) // those who wait for the deletion
	parting    parting
	consoles   int  // number of the last console socket
	bulky      bool // a client's queue was long
	starts     int  // of processes, since the last collection
	spillLimit int64
	cgroup     string // directory of the container's memory cgroup, "" if unknown
}

// Run serves the container until its Delete.
func Run(config Config) error {
	s, err := open()
	if err != nil {
		return err
	}
	return s.serve(config)
}

// serve is Run from where it depends on the container.
func (s *Shim) serve(config Config) (err error) {
	s.Config = config
	if s.dir, err = os.Getwd(); err != nil {
		return err
	}
	if err := s.readContainer(); err != nil {
		return err
	}
	if err := s.writeSelf(); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	failpoint.At("shim-listening")
	return s.run(s.idle)
}

// open makes what every shim has.
func open() (*Shim, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming a subreaper: %w", err)
	}
	l, err := newLoop()
	if err != nil {
		return nil, err
	}
	s := &Shim{
		loop:  l,
		peers: map[*peer]struct{}{}, children: map[int]*child{},
		processes: map[string]*process{}, sinks: map[*sink]struct{}{},
		spillLimit: spillLimit,
	}
	if s.memory, err = mapMemory(); err != nil {
		return nil, err
	}
	return s, s.watchSignals()
}

func (s *Shim) readContainer() error {
	var container proto.Container
	if err := proto.ReadFile(proto.ContainerFile, &container); err != nil {
		return err
	}
	for _, path := range []string{s.Bundle, s.Runtime} {
		if !filepath.IsAbs(path) {
			return errdefs.InvalidArgument.Errorf("%q is no absolute path", path)
		}
	}
	s.runtimeArgs = container.RuntimeArgs
	return nil
}

func (s *Shim) writeSelf() error {
	start, err := proto.StartTime(os.Getpid())
	if err != nil {
		return err
	}
	s.self = proto.Self{Pid: os.Getpid(), Start: start, Version: proto.Version}
	return proto.WriteFile(proto.SelfFile, s.self)
}

// manyStarts leave more garbage behind than a collection costs: after 150 a shim
// has 1.5 MiB that are no file's instead of 3.3.
const manyStarts = 50

// idle gives back memory when nothing has happened for a while.
func (s *Shim) idle() {
	s.memory.release()
	for _, p := range s.processes {
		if p.log != nil {
			p.log.Trim()
		}
	}
	if s.bulky || s.starts >= manyStarts { // a collection costs an idle shim 200 KiB: only where it pays
		heap.GiveBack()
		s.bulky, s.starts = false, 0
	}
}

// logf writes one line to shim.log.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().UTC().Format(time.RFC3339Nano)+" "+format+"\n", args...)
}
