package shim

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Who reads slowly, or not at all, costs a process with a log nothing: what its
// client has not taken waits in memory (memoryLimit), then in a file without a
// name beside the log (spillLimit). Beyond that output is left out for that
// client, which is told how much, in its stream, where the gap is. Only a client
// that the start waited for (`docker run` in a pipeline: its reader is the
// process's own standard output, and must get all) makes the process wait
// there, as long as it goes on reading: at least stallBytes in stallTime.
//
// Without a log there is no place for what is not taken but a queue in memory
// (queueLimit). While it is full the process waits, and a client that does not
// read is cut off after stallTime.
//
// After the process's end what is left for a client goes to its file, and stays
// until it is taken, the client closes, or the container is deleted. Without a log,
// or where others fill that room already, a client that takes too little in
// stallTime is cut off. A fifo is a pipe: its reader asked for one, so
// the process waits for it, for ever if need be, and nothing is cut off before
// the process has ended.

const (
	// memoryLimit is how far a client may be behind before the rest goes to a
	// file; more than one read, so that only whole frames do.
	memoryLimit = 2 * inputSize
	// spillLimit is how far behind it may be with it.
	spillLimit = 256 << 20
	// punchSize is how much a client has taken before the disk gets it back.
	punchSize = 4 << 20
)

// spill is the output that a client is behind: a file beside the log, without
// a name, gone with its descriptor.
type spill struct {
	fd       int
	from, to int64 // what of it is still to be sent
	punched  int64
}

func openSpill(dir string) (*spill, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a file in %s for a slow client: %w", dir, err)
	}
	return &spill{fd: fd}, nil
}

func (s *spill) size() int64 {
	if s == nil {
		return 0
	}
	return s.to - s.from
}

// write appends all of the parts, or nothing.
func (s *spill) write(parts [][]byte) error {
	at := s.to
	for _, part := range parts {
		for len(part) > 0 {
			n, err := unix.Pwrite(s.fd, part, at)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			at += int64(n)
			part = part[n:]
		}
	}
	s.to = at
	return nil
}

// read fills buffer from the beginning of what is left.
func (s *spill) read(buffer []byte) ([]byte, error) {
	for {
		n, err := unix.Pread(s.fd, buffer[:min(int64(len(buffer)), s.size())], s.from)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n <= 0 {
			err = unix.EIO // it is shorter than what was written
		}
		return buffer[:max(n, 0)], err
	}
}

// take forgets n bytes at the beginning.
func (s *spill) take(n int) {
	s.from += int64(n)
	if s.from-s.punched >= punchSize && s.size() > 0 {
		// Where a file system cannot do it the file is the longer for it.
		_ = unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.punched, s.from-s.punched)
		s.punched = s.from
	}
}

func (s *spill) close() {
	if s != nil {
		unix.Close(s.fd)
	}
}
