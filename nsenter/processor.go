package nsenter

// #include "begin.h"
import "C"

import "runtime"

// Unbound calls fork on a thread that may run on every processor that this program
// was started with, as what fork makes then may: where interrupts are dear, the
// program itself stays on one (processor.c).
func Unbound(fork func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if C.unbind_thread() != 0 {
		defer C.bind_thread()
	}
	return fork()
}

// Unbind gives the whole program the processors that it was started with, for what
// is not done in milliseconds or starts other programs.
func Unbind() { C.unbind_all() }
