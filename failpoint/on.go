//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this binary can be told to die.
const Enabled = true

var (
	wanted, nth = point(os.Getenv("ENGINED_FAILPOINT"))
	stops       = os.Getenv("ENGINED_FAILPOINT_STOPS") != ""
	trace       = os.Getenv("ENGINED_FAILPOINT_TRACE")
	passed      atomic.Int64 // passages of the wanted point
)

func point(setting string) (name string, nth int64) {
	name, count, counted := strings.Cut(setting, ":")
	if !counted {
		return name, 1
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		panic("ENGINED_FAILPOINT=" + setting + ": a name, or name:n with n from 1, was expected")
	}
	return name, n
}

// At kills the process, or stops it, if this is the passage that was asked for.
func At(name string) {
	if !Wants(name) {
		return
	}
	if stops {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		return
	}
	Die()
}

// Wants is At for a death that the caller brings about: of another process, one
// that cannot link this package.
func Wants(name string) bool {
	record(name)
	return name == wanted && passed.Add(1) == nth
}

// Die kills the process.
func Die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the signal arrives
}

// record appends in one write, so that processes can share the file.
func record(name string) {
	if trace == "" {
		return
	}
	file, err := os.OpenFile(trace, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return // another root, a full disk: the trace is for tests that see to both
	}
	_, _ = file.WriteString(name + "\n")
	_ = file.Close()
}
