package shim

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
)

// output is our end of a process's stdout or stderr, or of its terminal.
type output struct {
	p      *process
	stream logfile.Stream
	fd     int // -1 after its end
	source *source
}

// flow lets the loop read what may be read now: nothing while clients are
// awaited or one's queue is full.
func (p *process) flow() {
	stop := p.awaiting > 0
	for _, k := range p.sinks {
		stop = stop || k.full
	}
	for _, o := range p.outputs {
		switch {
		case o.source == nil:
		case stop:
			p.s.pause(o.source)
		default:
			p.s.want(o.source, unix.EPOLLIN)
		}
	}
}

// pump carries one read's worth of output.
func (o *output) pump() (n int) {
	if o.fd < 0 {
		return 0
	}
	n, err := unix.Read(o.fd, o.p.s.memory.input)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0
	case err != nil || n == 0: // EIO: the terminal's other side is closed
		o.close()
		return 0
	}
	o.p.carry(o.stream, o.p.s.memory.input[:n])
	return n
}

// carry gives output to all who want it.
func (p *process) carry(stream logfile.Stream, data []byte) {
	if p.log != nil {
		p.log.Write(stream, data, time.Now())
		p.tend()
	}
	for _, k := range p.sinks {
		k.write(stream, data)
	}
}

func (o *output) close() {
	if o.fd >= 0 {
		o.p.s.remove(o.source)
		o.source = nil
		unix.Close(o.fd)
		o.fd = -1
	}
}

// drain carries what a dead process left. What its children go on writing is
// not waited for: as much as a pipe can hold is the most that it left.
func (o *output) drain() {
	if o.fd < 0 {
		return
	}
	left, err := unix.FcntlInt(uintptr(o.fd), unix.F_GETPIPE_SZ, 0)
	if err != nil { // a terminal
		left = 64 << 10
	}
	for left > 0 {
		n := o.pump()
		if n == 0 {
			break
		}
		left -= n
	}
	o.close()
}

// tend looks after the log: files to compress, lines lost.
func (p *process) tend() {
	if p.gzip == nil {
		p.compress()
	}
	if lost, _ := p.log.Lost(); lost > p.lostSaid && p.lostWait == nil {
		p.sayLost()
	}
}

// lostInterval is the time between two LogLost packets.
const lostInterval = time.Second

func (p *process) sayLost() {
	lost, reason := p.log.Lost()
	p.lostSaid = lost
	logf("process %s: %d log lines are lost: %v", p.name, lost, reason)
	p.s.tell(proto.LogLost, proto.LogLostNote{Process: p.name, Lines: lost, Reason: reason.Error()})
	p.lostWait = p.s.after(lostInterval, func() {
		p.lostWait = nil
		if p.log != nil {
			p.tend()
		}
	})
}

// CompressCommand is the argument with which the shim runs itself to compress
// standard input to standard output.
const CompressCommand = "compress"

// compress has a child compress a rotated file, if there is one to compress.
func (p *process) compress() {
	work, ok := p.log.Compress()
	if !ok {
		return
	}
	defer closeAll(work.From, work.To)
	child, err := p.s.spawn([]string{"/proc/self/exe", CompressCommand}, [3]int{work.From, work.To, 2}, func(status unix.WaitStatus) {
		p.gzip = nil
		p.log.Compressed(status.Exited() && status.ExitStatus() == 0)
		if p.phase != finished {
			p.compress()
		}
		p.closeLog()
		p.s.sunk()
	})
	if err != nil {
		logf("compressing a log: %v", err)
		p.log.Compressed(false)
		return
	}
	p.gzip = child
}
