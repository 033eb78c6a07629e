//go:build failpoints

package image

import (
	"os"
	"syscall"
)

// With ENGINED_FAILPOINT=<name> the process kills itself at that point.
func init() {
	wanted := os.Getenv("ENGINED_FAILPOINT")
	failpoint = func(name string) {
		if name == wanted {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
	}
}
