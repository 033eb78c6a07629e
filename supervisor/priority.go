package supervisor

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// precedence is the nice value of the supervisor's session among the sessions of
// the machine, where the kernel shares the processor out by session.
const precedence = -10

// TakePrecedence lets this process answer while many containers start. Each shim
// makes a session of its own, and what it starts is in that or in the container's
// cgroup, so nothing of it is meant for them (sched(7), autogroup).
//
// A child has it until then, which matters here: from fork to exec it holds one of
// Go's processors, 10 to 100 ms where many processes can run and it is one of them.
func TakePrecedence(logger *slog.Logger) {
	if session, err := unix.Getsid(0); err != nil || session != os.Getpid() {
		return // others' too
	}
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(precedence)), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: it is not shared out so
		logger.Debug("taking precedence over what is started", "error", err)
	}
}
