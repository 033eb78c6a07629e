package engined

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// lock is a file that this process holds locked and that names it. The kernel
// drops the lock with the process, so a file that a dead one left is no
// obstacle, whoever has its pid now.
type lock struct{ file *os.File }

// lockWait is how long take tries where the process that the file names is dead: a
// child that was forked when it was killed has the lock until its exec.
const lockWait = 2 * time.Second

// take locks a file, or says who has it.
func take(path string) (_ *lock, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for late := time.Now().Add(lockWait); errors.Is(err, unix.EWOULDBLOCK) && isDead(holder(file)) && time.Now().Before(late); {
		time.Sleep(5 * time.Millisecond) // flock knows no time limit
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errdefs.Conflict.Errorf("%s: process with PID %s is still running", path, holder(file))
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if err := rewrite(file, strconv.Itoa(os.Getpid())); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &lock{file}, nil
}

func rewrite(file *os.File, content string) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(content), 0)
	return err
}

func holder(file *os.File) string {
	content, err := io.ReadAll(io.NewSectionReader(file, 0, 16))
	if pid := strings.TrimSpace(string(content)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}

func isDead(pid string) bool {
	number, err := strconv.Atoi(pid)
	return err == nil && number > 0 && errors.Is(unix.Kill(number, 0), unix.ESRCH)
}

// drop removes the file and the lock.
func (l *lock) drop() error {
	return errors.Join(os.Remove(l.file.Name()), l.file.Close())
}
