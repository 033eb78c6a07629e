package shim

import (
	"errors"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// inputChunk is the most that is read from a client at once.
const inputChunk = 64 << 10

// discards bounds what is read for nothing, by far more than a socket holds: a client
// by TCP could go on sending.
const discards = 1000

// input is our end of a process's stdin.
type input struct {
	p       *process
	fd      int  // -1 once closed
	early   bool // a terminal that is still to come; bytes are queued
	source  *source
	queue   []byte // what the process has not taken yet; at most inputChunk, and a fifo's last
	closing bool   // close it when the queue is taken
}

// hungry reports whether more may be read from clients. What is read after the
// process has closed its stdin is dropped, as a pipe to `head` would.
func (i *input) hungry() bool {
	return i != nil && len(i.queue) == 0
}

// write gives bytes to the process.
func (i *input) write(data []byte) {
	if i.fd < 0 && !i.early || i.closing {
		return
	}
	if len(i.queue) == 0 && !i.early {
		n, err := i.put(data)
		if err != nil {
			i.close()
			return
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return
	}
	i.queue = append(i.queue, data...)
	if !i.early {
		i.watch()
	}
}

// open gives a terminal's input its descriptor.
func (i *input) open(fd int) {
	i.fd, i.early = fd, false
	if len(i.queue) > 0 {
		i.watch()
	}
}

func (i *input) put(data []byte) (int, error) {
	for {
		n, err := unix.Write(i.fd, data)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		}
		return max(n, 0), err
	}
}

// watch waits for room.
func (i *input) watch() {
	if i.source != nil {
		i.p.s.want(i.source, unix.EPOLLOUT)
		return
	}
	source, err := i.p.s.add(i.fd, unix.EPOLLOUT, func(uint32) { i.ready() })
	if err != nil {
		logf("process %s: %v", i.p.name, err)
		i.close()
		return
	}
	i.source = source
}

func (i *input) ready() {
	n, err := i.put(i.queue)
	if err != nil {
		i.close()
		return
	}
	if i.queue = i.queue[n:]; len(i.queue) > 0 {
		return
	}
	i.queue = nil
	if i.closing {
		i.close()
		return
	}
	i.p.s.pause(i.source)
	i.p.feed()
}

// end closes stdin when the process has taken what is queued.
func (i *input) end() {
	if len(i.queue) > 0 {
		i.closing = true
		return
	}
	i.close()
}

func (i *input) close() {
	i.early = false
	if i.fd < 0 {
		return
	}
	i.p.s.remove(i.source)
	unix.Close(i.fd)
	i.fd, i.source, i.queue = -1, nil, nil
	i.p.feed()
}

// feed lets clients send again.
func (p *process) feed() {
	for _, k := range p.sinks {
		if k.stdin {
			k.update()
		}
	}
}

// receive reads input from a client and returns how much that was.
func (k *sink) receive() (n int) {
	buffer := k.s.memory.input[:inputChunk]
	var err error
	if k.fifo {
		n, err = unix.Read(k.fd, buffer)
	} else {
		n, _, err = unix.Recvfrom(k.fd, buffer, unix.MSG_DONTWAIT)
	}
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case err != nil:
		k.drop()
	case n == 0:
		k.inputEnded()
	default:
		k.feed(buffer[:n])
	}
	return max(n, 0)
}

// discardInput reads what nobody takes any more, of a connection that is shut down:
// closed with that in it, the client would have a reset after its output and not the
// output's end. It has a buffer of its own: the shared one may hold output on its way to
// other clients.
func (k *sink) discardInput() {
	var nothing [4 << 10]byte
	for range discards {
		n, _, err := unix.Recvfrom(k.fd, nothing[:], unix.MSG_DONTWAIT)
		if n <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// feed gives a client's bytes to the process, unless they detach it.
func (k *sink) feed(data []byte) {
	p, detached := k.p, false
	if k.keys != nil {
		data, detached = k.keys.filter(data)
	}
	if len(data) > 0 {
		p.input.write(data)
	}
	if detached {
		k.stdin = false // leaving is not the end of the input
		k.finish()
		return
	}
	if k.fd >= 0 {
		k.update()
	}
}

// inputEnded handles a client's half-close. As dockerd does it: the process's
// stdin ends if it was opened for one client; otherwise the client leaves.
func (k *sink) inputEnded() {
	k.stdin = false
	if k.p.inputEnded(true) {
		k.update()
		return
	}
	k.finish()
}

// inputEnded closes stdin if the client that had it was the only one to have.
// For added processes it always is: dockerd's exec. A terminal has no half-close.
func (p *process) inputEnded(half bool) (closed bool) {
	once := p.request.StdinOnce || p.name != proto.Init
	if p.input == nil || !once || p.request.Terminal && half {
		return false
	}
	if !p.request.Terminal {
		p.input.end()
	}
	return true
}
