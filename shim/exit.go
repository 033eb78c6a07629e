package shim

import (
	"time"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"

	"github.com/engined/engined/failpoint"
)

// exited is called with the process's status.
func (p *process) exited(status unix.WaitStatus) {
	p.exit = proto.Exit{Time: time.Now().UTC(), Status: status.ExitStatus()}
	if status.Signaled() {
		p.exit.Signal = int(status.Signal())
		p.exit.Status = 128 + p.exit.Signal
	}
	if p.child.lost {
		p.exit.Reason = "its status was collected by another process"
	}
	p.exit.OOMKilled = p.s.oomKills() > p.oomBase
	p.phase = dead
	failpoint.At("shim-status-collected")
	p.s.settleExit(p)
}

// settleExit ends a dead process when nothing is in the way: a client that is
// still to come for its output, or a `RUNTIME start` that has not returned.
func (s *Shim) settleExit(p *process) {
	if p.phase != dead || p.awaiting > 0 || p.call != nil {
		s.sunk()
		return
	}
	for _, o := range p.outputs {
		o.drain()
	}
	if p.log != nil {
		p.log.End(time.Now())
		p.exit.LogLost, _ = p.log.Lost()
	}
	failpoint.At("shim-output-drained")
	if err := proto.WriteFile(p.file(proto.ExitFile), p.exit); err != nil {
		logf("process %s: %v", p.name, err)
		s.settleLater(p)
		return
	}
	failpoint.At("shim-exit-written")
	p.phase = finished
	s.tell(proto.Exited, proto.ProcessRef{Process: p.name})
	failpoint.At("shim-exit-told")
	p.closeIO()
	s.sunk()
}

// exitRetry is the pause before exit.json is tried again when there is no room for
// it: without the file nobody would ever learn of the end.
const exitRetry = time.Second

func (s *Shim) settleLater(p *process) {
	if p.exitWait == nil {
		p.exitWait = s.after(exitRetry, func() {
			p.exitWait = nil
			s.settleExit(p)
		})
	}
}

// closeIO gives back all that the process's stdio held. Queues are still sent.
func (p *process) closeIO() {
	for _, o := range p.outputs {
		o.close()
	}
	if p.input != nil {
		p.input.close()
	}
	closeAll(p.console)
	p.console = -1
	for _, k := range append([]*sink(nil), p.sinks...) {
		k.park() // before k.p is gone, whose log says where
		k.p = nil
		k.finish()
	}
	p.sinks = nil
	for _, t := range []*timer{p.await, p.lostWait, p.exitWait} {
		if t != nil {
			p.s.stop(t)
		}
	}
	p.closeLog()
}

// closeLog closes the log of a finished process, unless gzip is at work: then
// that calls it.
func (p *process) closeLog() {
	if p.log != nil && p.phase == finished && p.gzip == nil {
		p.log.Close()
		p.log = nil
	}
}

// forget gives back an exited process.
func (s *Shim) forget(name string) error {
	p, err := s.find(name)
	if err != nil {
		return err
	}
	if p.phase != finished {
		return notExited(p)
	}
	delete(s.processes, name)
	return nil
}
