package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
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
	if err := writeNew(temporary, strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("writing the pid file: %w", err)
	}
	failpoint.At("pid-file-written")
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("writing the pid file: %w", err)
	}
	return nil
}

// writeNew writes a file that was not there: one left by a runtime that was killed goes
// first, and so does a link that somebody else made.
func writeNew(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// exitCode is a wait status as a shell shows it.
func exitCode(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
