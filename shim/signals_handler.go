//go:build linux && (amd64 || arm64)

package shim

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// catch has the caught signals written to the eventfd by a handler of our own,
// in place of the Go runtime's. It runs on whatever thread the kernel chose and
// makes one system call, so none of Go's rules for handlers concern it. Package
// os/signal does the same with three threads more.
func catch(eventfd int) error {
	noteFD = int32(eventfd)
	for _, signal := range caught {
		action := sigaction{
			handler: onSignalPC, flags: saOnStack | saRestart | saRestorer, restorer: onReturnPC, mask: ^uint64(0),
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
			return fmt.Errorf("catching %s: %w", signal, errno)
		}
	}
	return nil
}

// sigaction is the kernel's struct, not libc's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Of asm-generic/signal-defs.h. The stack is the one that Go gives each thread.
const (
	saRestorer = 0x04000000
	saOnStack  = 0x08000000
	saRestart  = 0x10000000
)

// What the handler, which is in assembly, reads.
//
//nolint:unused // see above
var (
	noteFD    int32
	childNote uint64 = childCount
	dumpNote  uint64 = dumpCount
)

// The handler's addresses; a func value would lead to the Go wrapper around it.
var onSignalPC, onReturnPC uintptr

//nolint:unused // onSignalPC
func onSignal()

//nolint:unused // onReturnPC
func onReturn()
