package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
)

const (
	// queueLimit is how many bytes wait for one slow client, of a process without
	// a log, or for a fifo, before the process has to.
	queueLimit = 1 << 20
	// stallTime is how long a client may keep the process waiting without taking
	// at least stallBytes.
	stallTime  = 10 * time.Second
	stallBytes = 64 << 10
	// parkedClients is how many may take their time after the process's end.
	parkedClients = 64
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

	queue   []byte // unsent, oldest first
	spill   *spill // instead of the queue, nil: none
	nospill bool   // no file could be made
	awaited bool   // the process was not let go without it
	idle    bool   // beyond the limit the process does not wait for it, as it does not read
	lost    int64  // bytes left out; all are until it has caught up
	full    bool   // the process waits for it
	closing bool   // close it when all is sent
	parked  bool   // and that has time
	taken   int64
	mark    int64 // taken when the stall timer was set
	stall   *timer
}

func (k *sink) wants(stream logfile.Stream) bool {
	return stream == logfile.Stdout && k.stdout || stream == logfile.Stderr && k.stderr
}

// write sends output, or keeps what cannot be sent now.
func (k *sink) write(stream logfile.Stream, data []byte) {
	if k.fd < 0 || k.closing || !k.wants(stream) {
		return
	}
	if k.lost > 0 {
		k.lost += int64(len(data))
		return
	}
	var header []byte
	if k.framed {
		header = k.header(stream, len(data))
	}
	sent := 0
	if k.behind() == 0 {
		n, err := k.send(header, data)
		if err != nil {
			k.drop()
			return
		}
		sent = n
	}
	fromData := max(sent-len(header), 0)
	k.keep(len(data), header[min(sent, len(header)):], data[fromData:])
	k.update()
}

func (k *sink) header(stream logfile.Stream, size int) []byte {
	return binary.BigEndian.AppendUint32([]byte{byte(stream), 0, 0, 0}, uint32(size))
}

// behind returns how much is still to be sent.
func (k *sink) behind() int64 { return int64(len(k.queue)) + k.spill.size() }

// spills says that the process need not wait: what k does not take is kept in a
// file, and what that does not hold is in the log.
func (k *sink) spills() bool { return k.spillDir() != "" && !k.nospill }

// spillDir is where the process's log is, whose disk has room for its output.
func (k *sink) spillDir() string {
	if k.fifo || k.p == nil || k.p.request.Log == nil {
		return ""
	}
	return filepath.Dir(k.p.request.Log.Path)
}

// keep keeps what is left of size bytes of output: in memory, beyond memoryLimit
// in a file.
func (k *sink) keep(size int, parts ...[]byte) {
	if k.spill == nil && len(k.queue)+size > memoryLimit {
		k.toFile()
	}
	switch {
	case k.spill == nil:
		for _, part := range parts {
			k.queue = append(k.queue, part...)
		}
	case k.behind() >= k.s.spillLimit && (!k.awaited || k.idle):
		k.lost += int64(size)
	default:
		if err := k.spill.write(parts); err != nil {
			logf("keeping output for a slow client: %v", err)
			k.lost += int64(size)
		}
	}
}

// toFile moves what k is behind to a file, where it may and can. It reports
// whether that is there.
func (k *sink) toFile() bool {
	if k.spill != nil || !k.spills() {
		return k.spill != nil
	}
	file, err := openSpill(k.spillDir())
	if err == nil {
		if err = file.write([][]byte{k.queue}); err != nil {
			file.close()
		}
	}
	if err != nil {
		logf("keeping output for a slow client: %v", err)
		k.nospill = true
		return false
	}
	k.queue, k.spill = nil, file
	return true
}

// park is for the end of the process: what k is behind is kept in a file until k
// takes it or goes, for as many and as much as parkedClients and the limit of one
// client's file say. Of others it is kept for stallTime.
func (k *sink) park() {
	clients, bytes := 0, k.behind()
	for other := range k.s.sinks {
		if other.parked {
			clients, bytes = clients+1, bytes+other.behind()
		}
	}
	if k.fd >= 0 && k.behind() > 0 && clients < parkedClients && bytes <= k.s.spillLimit {
		k.parked = k.toFile()
	}
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

// flush sends what was kept, as much of it as one call can.
func (k *sink) flush() {
	if k.behind() == 0 {
		return
	}
	if err := k.flushSome(); err != nil {
		k.drop()
		return
	}
	if k.behind() == 0 {
		k.caughtUp()
	}
	if k.closing && k.behind() == 0 {
		k.drop()
		return
	}
	k.update()
}

func (k *sink) flushSome() error {
	if len(k.queue) > 0 {
		n, err := k.send(k.queue)
		k.queue = k.queue[n:]
		return err
	}
	chunk, err := k.spill.read(k.s.memory.input)
	if err != nil {
		return err
	}
	n, err := k.send(chunk)
	k.spill.take(n)
	return err
}

// caughtUp gives back what k's lag took and says what it has missed.
func (k *sink) caughtUp() {
	k.spill.close()
	k.queue, k.spill, k.idle = nil, nil, false
	if k.lost == 0 {
		return
	}
	text := fmt.Sprintf("\r\n[%d bytes of output are left out here: this client did not read; the container's log has them]\r\n", k.lost)
	logf("a client did not read: it has missed %d bytes of output", k.lost)
	k.lost = 0
	if k.framed {
		stream := logfile.Stderr
		if !k.stderr {
			stream = logfile.Stdout
		}
		k.queue = k.header(stream, len(text))
	}
	k.queue = append(k.queue, text...)
}

// update tells the loop what k waits for, and the process whether to wait.
func (k *sink) update() {
	var events uint32
	if k.behind() > 0 {
		events |= unix.EPOLLOUT
	}
	if k.stdin && k.p != nil && k.p.input.hungry() {
		events |= unix.EPOLLIN
	}
	k.s.want(k.source, events)
	k.s.bulky = k.s.bulky || len(k.queue) > stallBytes
	if full := k.isFull(); full != k.full {
		k.full = full
		if k.p != nil {
			k.p.flow()
		}
	}
	k.watchStall()
}

// isFull says whether the process has to wait: once it does, until half is sent.
func (k *sink) isFull() bool {
	if k.closing {
		return false // there is no process that could
	}
	limit := int64(queueLimit)
	if k.spills() {
		if !k.awaited || k.idle {
			return false
		}
		limit = k.s.spillLimit
	}
	return k.behind() >= limit || k.full && k.behind() >= limit/2
}

// watchStall runs the stall timer while somebody waits for k.
func (k *sink) watchStall() {
	waited := k.closing && !k.parked || k.full && !k.fifo
	switch {
	case !waited && k.stall != nil:
		k.s.stop(k.stall)
		k.stall = nil
	case waited && k.stall == nil:
		k.mark = k.taken
		k.stall = k.s.after(stallTime, func() {
			k.stall = nil
			k.stalled(k.taken - k.mark)
		})
	}
}

// stalled looks at what k has taken in stallTime.
func (k *sink) stalled(taken int64) {
	switch {
	case taken >= min(stallBytes, k.behind()):
		k.watchStall()
	case k.closing || !k.spills():
		logf("a client that does not read is cut off, %d bytes unsent", k.behind()+k.lost)
		k.drop()
	default:
		k.idle = true
		k.update()
	}
}

// finish closes k when its queue is sent.
func (k *sink) finish() {
	if k.fd < 0 || k.closing {
		return
	}
	k.closing, k.stdin = true, false
	if k.behind() == 0 {
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
		_ = unix.Shutdown(k.fd, unix.SHUT_RDWR)
		k.discardInput()
	}
	unix.Close(k.fd)
	k.spill.close()
	k.fd, k.queue, k.spill, k.full = -1, nil, nil, false
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
