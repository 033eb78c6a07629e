package shim

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	proto "github.com/engined/engined/proto/shim"
)

// partingTime is how long a Delete waits for clients that still have output to
// read and for the status of what it killed.
const partingTime = 15 * time.Second

// parting is what remains to be done before the shim exits.
type parting struct {
	deleted bool
	limit   *timer
}

// delete removes the container by force, answers and ends the loop. A start
// under way is killed first: it may be why we are asked. Who asks while it is
// being done, as a supervisor that took over from one that was killed, waits for
// the same end.
func (s *Shim) delete(answer func(error)) {
	s.askers = append(s.askers, answer)
	if s.deleting {
		return
	}
	s.deleting = true
	for _, p := range s.processes {
		if p.abort != nil {
			p.abort(errdefs.Aborted.Errorf("container %s is being deleted", s.ID))
			continue
		}
		if p.call != nil {
			_ = p.call.kill(unix.SIGKILL)
		}
		p.release()
	}
	_, err := s.invoke(invocation{
		verb: "delete", args: []string{"--force", s.ID}, log: proto.RuntimeLog, files: [3]int{-1, -1, -1},
	}, func(err error) {
		if err != nil && errdefs.CodeOf(err) != errdefs.NoSuchContainer {
			s.undeleted(err)
			return
		}
		failpoint.At("shim-container-deleted")
		s.parting.deleted = true
		s.parting.limit = s.after(partingTime, s.leave)
		s.sunk()
	})
	if err != nil {
		s.undeleted(err)
	}
}

// undeleted tells all who wait that the deletion failed; it may be tried again.
func (s *Shim) undeleted(err error) {
	askers := s.askers
	s.deleting, s.askers = false, nil
	for _, answer := range askers {
		answer(err)
	}
}

// sunk is called whenever something that a Delete waits for may be done.
func (s *Shim) sunk() {
	if !s.parting.deleted || len(s.sinks) > 0 || s.calls > 0 {
		return
	}
	for _, p := range s.processes {
		if p.phase != finished || p.gzip != nil {
			return
		}
	}
	s.leave()
}

func (s *Shim) leave() {
	if !s.ended {
		s.ended = true
		for _, answer := range s.askers {
			answer(nil)
		}
	}
}
