package shim

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// caught are the signals that the Go runtime does not deal with as we need it.
// SIGCHLD makes the loop look for strays, SIGUSR1 makes it write its stack;
// the others would end the shim, which ends with its container. They are caught,
// not ignored: exec would hand an ignored one down to the container.
var caught = []unix.Signal{unix.SIGCHLD, unix.SIGUSR1, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE}

// What one signal adds to the eventfd's count.
const (
	childCount = 1
	dumpCount  = 1 << 32
)

func (s *Shim) watchSignals() error {
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("making an eventfd: %w", err)
	}
	if _, err := s.add(eventfd, unix.EPOLLIN, func(uint32) { s.signalled(eventfd) }); err != nil {
		return err
	}
	return catch(eventfd)
}

func (s *Shim) signalled(eventfd int) {
	var count [8]byte
	if _, err := unix.Read(eventfd, count[:]); err != nil {
		return
	}
	if binary.NativeEndian.Uint64(count[:]) >= dumpCount {
		stacks := make([]byte, 64<<10)
		stacks = stacks[:runtime.Stack(stacks, true)]
		logf("=== BEGIN goroutine stack dump ===\n%s\n=== END goroutine stack dump ===", stacks)
	}
	for _, c := range s.children {
		if c.absent {
			s.reap(c)
		}
	}
	s.reapStrays()
}
