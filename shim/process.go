package shim

import (
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// phase is where a process is in its life.
type phase int

const (
	starting phase = iota // the runtime is at work, or a fifo is waited for
	created               // init with create_only, before Resume
	running
	dead     // status collected; its output may be held for a client
	finished // exit.json is written
)

// process is one process of the container, from its Start to its Forget.
type process struct {
	s       *Shim
	name    string
	request proto.Request
	phase   phase
	child   *child
	started proto.Started
	oomBase uint64 // OOM kills in the cgroup before it started

	call     *child      // the runtime that is starting it
	abort    func(error) // ends the wait for its fifos
	outputs  []*output
	input    *input
	console  int // pty master, -1 if none
	log      *logfile.Writer
	gzip     *child
	sinks    []*sink
	awaiting int // clients for which output is held
	await    *timer

	lostSaid int64 // lines in the last LogLost
	lostWait *timer
	exit     proto.Exit
	exitWait *timer // exit.json could not be written
}

// maxName is how long a process's name may be.
const maxName = 128

// validName keeps a process's name a plain file name in the container's directory.
func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// file returns the path of one of the process's files, relative to our directory.
func (p *process) file(name string) string { return filepath.Join(p.name, name) }

// find returns a process that was started and not forgotten.
func (s *Shim) find(name string) (*process, error) {
	p := s.processes[name]
	if p == nil {
		return nil, errdefs.NotFound.Errorf("container %s has no process %s", s.ID, strconv.Quote(name))
	}
	return p, nil
}

// alive returns a process that a signal or a client can reach.
func (s *Shim) alive(name string) (*process, error) {
	p, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if p.phase >= dead {
		return nil, errdefs.FailedPrecondition.Coded(errdefs.NotRunning, name, "process %s of container %s has exited", name, s.ID)
	}
	return p, nil
}

// closeAll closes the descriptors that are open.
func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
