package container

import (
	"slices"
	"strconv"
	"sync"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// execs are the commands of all containers.
type execs struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*command
}

// execKept is how long a command that has ended can be inspected.
const execKept = 5 * time.Minute

// add also drops what has been kept long enough.
func (x *execs) add(e *command) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, old := range x.byID {
		if old.endedBefore(time.Now().Add(-execKept)) {
			delete(x.byID, id)
		}
	}
	x.byID[e.id] = e
}

func (x *execs) find(id string) (*command, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, found := x.byID[id]; found {
		return e, nil
	}
	return nil, errdefs.NotFound.Coded(errdefs.NoSuchExec, id, "No such exec instance: %s", id)
}

// of returns a container's commands.
func (x *execs) of(container string) (list []*command) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.byID {
		if e.container.id == container {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *command) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return list
}

// containerExited ends what ran in a container: its processes died with it.
func (x *execs) containerExited(container string) {
	for _, e := range x.of(container) {
		e.end(128 + 9)
	}
}

// containerRemoved drops a container's commands.
func (x *execs) containerRemoved(container string) {
	for _, e := range x.of(container) {
		x.mu.Lock()
		delete(x.byID, e.id)
		x.mu.Unlock()
	}
}

func (e *command) endedBefore(t time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.ended.IsZero() && e.ended.Before(t)
}

// execExited notes the end of a command and lets the shim forget it.
func (s *Service) execExited(id string, exit task.Exit) {
	e, err := s.execs.find(id)
	if err != nil || !e.end(exit.Status) {
		return
	}
	s.tellExec(e, apievents.ActionExecDie, map[string]string{"exitCode": strconv.Itoa(exit.Status)})
}
