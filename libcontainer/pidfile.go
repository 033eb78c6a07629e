package libcontainer

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
)

// writePidFile puts the pid at path in one step: whoever waits for the file
// never reads half of it.
func writePidFile(path string, pid int) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temporary, []byte(strconv.Itoa(pid)), 0o666); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	failpoint.At("pid-file-written")
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("writing the pid file: %w", err)
	}
	return nil
}

// exitCode is a wait status as a shell shows it.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
