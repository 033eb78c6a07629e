package shim

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What idle shims have each, step by step (KiB of PSS when there are 30 and when
// there are 100, threads):
//
//	os/signal, a P for each of two processors     ~1000          7-8
//	signals by a handler of our own, signals.go    ~990            5
//	GOMAXPROCS=1 in the environment                 836    763     4
//	kernel files read without package os              -    750     4
//	built with GOEXPERIMENT=nogreenteagc              -    687     4
//
// A Go program that only waits has 475 to 510. The threads left are the loop, sysmon
// and the two that the runtime parks. Lost with os/signal: USR1's stack dump
// comes from the loop, so not while the disk holds it up. A collection costs an
// idle shim 200 KiB and is made only where it pays. Buffers for reading and for
// encoding log lines are mapped memory, given back after a second without events.

const (
	inputSize  = 128 << 10 // one read; more than a packet and than a pipe's default
	encodeSize = 256 << 10 // the log writer's
)

// memory is the buffers that everything in the loop shares: nothing keeps a
// part of them from one event to the next. It is outside the Go heap so that
// its pages can be given back at once.
type memory struct {
	all    []byte
	input  []byte
	encode []byte // the log writers'
}

func mapMemory() (*memory, error) {
	all, err := unix.Mmap(-1, 0, inputSize+encodeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes: %w", inputSize+encodeSize, err)
	}
	// No huge page: the first byte read would cost two megabytes.
	if err := unix.Madvise(all, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL {
		return nil, fmt.Errorf("madvise: %w", err)
	}
	return &memory{all, all[:inputSize:inputSize], all[inputSize:]}, nil
}

// read returns a file of the kernel's, valid until the loop reads anything else.
// os.ReadFile would grow its buffer through a dozen size classes, each of which
// costs an idle shim a page or two for ever.
func (m *memory) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer unix.Close(fd)
	for done := 0; done < len(m.input); {
		n, err := unix.Read(fd, m.input[done:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("reading %s: %w", path, err)
		case n == 0:
			return m.input[:done], nil
		}
		done += n
	}
	return nil, fmt.Errorf("%s has more than %d bytes", path, len(m.input))
}

func (m *memory) release() {
	if err := unix.Madvise(m.all, unix.MADV_DONTNEED); err != nil {
		logf("giving back memory: %v", err)
	}
}
