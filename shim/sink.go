package shim

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
)

const (
	// queueLimit is how many bytes wait for one slow client before the process
	// has to.
	queueLimit = 1 << 20
	// stallTime is how long a client may keep the process waiting without taking
	// at least stallBytes.
	stallTime  = 10 * time.Second
	stallBytes = 64 << 10
)

// sink is somebody who gets output: an attached client or a fifo.
type sink struct {
	s      *Shim
	p      *process // nil once the process is forgotten or finished
	fd     int      // -1 once closed
	source *source
	fifo   bool
	framed bool // Docker's eight-byte headers
	stdout bool
	stderr bool
	keys   *detachKeys // nil: none
	stdin  bool        // its input goes to the process, and has not ended

	queue   []byte
	full    bool // the process waits for it
	closing bool // close it when the queue is sent
	taken   int64
	mark    int64 // taken when the stall timer was set
	stall   *timer
}

func (k *sink) wants(stream logfile.Stream) bool {
	return stream == logfile.Stdout && k.stdout || stream == logfile.Stderr && k.stderr
}

// write sends output, or queues what cannot be sent now.
func (k *sink) write(stream logfile.Stream, data []byte) {
	if k.fd < 0 || k.closing || !k.wants(stream) {
		return
	}
	var header []byte
	if k.framed {
		header = binary.BigEndian.AppendUint32([]byte{byte(stream), 0, 0, 0}, uint32(len(data)))
	}
	sent := 0
	if len(k.queue) == 0 {
		n, err := k.send(header, data)
		if err != nil {
			k.drop()
			return
		}
		sent = n
	}
	if sent < len(header) {
		k.queue = append(k.queue, header[sent:]...)
		sent = len(header)
	}
	k.queue = append(k.queue, data[sent-len(header):]...)
	k.update()
}

// send sends as much as can be sent now.
func (k *sink) send(parts ...[]byte) (n int, err error) {
	for {
		if k.fifo {
			n, err = unix.Write(k.fd, parts[len(parts)-1])
		} else {
			// MSG_DONTWAIT, not O_NONBLOCK: the latter is shared with whoever gave
			// us the connection.
			n, err = unix.SendmsgBuffers(k.fd, parts, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		}
		k.taken += int64(max(n, 0))
		return max(n, 0), err
	}
}

// ready handles the loop's events.
func (k *sink) ready(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		k.flush()
	}
	if k.fd >= 0 && k.stdin && events&unix.EPOLLIN != 0 {
		k.receive()
		return
	}
	if k.fd >= 0 && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		if k.stdin && events&unix.EPOLLERR == 0 {
			// Its input is still to be read, once the process takes it.
			k.s.pause(k.source)
			return
		}
		k.drop()
	}
}

// flush sends from the queue.
func (k *sink) flush() {
	if len(k.queue) == 0 {
		return
	}
	n, err := k.send(k.queue)
	if err != nil {
		k.drop()
		return
	}
	if k.queue = k.queue[n:]; len(k.queue) == 0 {
		k.queue = nil
		if k.closing {
			k.drop()
			return
		}
	}
	k.update()
}

// update tells the loop what k waits for, and the process whether to wait.
func (k *sink) update() {
	var events uint32
	if len(k.queue) > 0 {
		events |= unix.EPOLLOUT
	}
	if k.stdin && k.p != nil && k.p.input.hungry() {
		events |= unix.EPOLLIN
	}
	k.s.want(k.source, events)
	k.s.bulky = k.s.bulky || len(k.queue) > stallBytes
	full := len(k.queue) > queueLimit || k.full && len(k.queue) > queueLimit/2
	if full != k.full {
		k.full = full
		if k.p != nil {
			k.p.flow()
		}
	}
	k.watchStall()
}

// watchStall runs the stall timer while somebody waits for k.
func (k *sink) watchStall() {
	waited := k.closing || k.full && !k.fifo
	switch {
	case !waited && k.stall != nil:
		k.s.stop(k.stall)
		k.stall = nil
	case waited && k.stall == nil:
		k.mark = k.taken
		k.stall = k.s.after(stallTime, func() {
			k.stall = nil
			if k.taken-k.mark < min(stallBytes, int64(len(k.queue))) {
				logf("a client that does not read is cut off, %d bytes unsent", len(k.queue))
				k.drop()
				return
			}
			k.watchStall()
		})
	}
}

// finish closes k when its queue is sent.
func (k *sink) finish() {
	if k.fd < 0 || k.closing {
		return
	}
	k.closing, k.stdin = true, false
	if len(k.queue) == 0 {
		k.drop()
		return
	}
	k.update()
}

// drop closes k now.
func (k *sink) drop() {
	if k.fd < 0 {
		return
	}
	k.s.remove(k.source)
	if k.stall != nil {
		k.s.stop(k.stall)
	}
	if !k.fifo {
		// Whoever gave it to us may still have it open.
		unix.Shutdown(k.fd, unix.SHUT_RDWR)
	}
	unix.Close(k.fd)
	k.fd, k.queue, k.full = -1, nil, false
	delete(k.s.sinks, k)
	if p := k.p; p != nil {
		k.p = nil
		p.sinks = slices.DeleteFunc(slices.Clone(p.sinks), func(other *sink) bool { return other == k })
		if k.stdin {
			k.stdin = false
			p.inputEnded(false)
		}
		p.flow()
	}
	k.s.sunk()
}
