package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const cgroups = "/sys/fs/cgroup"

// Hierarchies are the kernel's, not a namespace's: what one test mounts another
// finds in /proc/self/cgroup, and crun then takes it for granted. So all tests
// that run reference runtimes hold a lock on the host's directory of cgroups,
// and who mounts holds it alone.
var hierarchies *os.File

// share waits until nobody has hierarchies of his own. The lock ends with the
// process.
func share() (err error) {
	if hierarchies, err = os.Open(cgroups); err != nil {
		return err
	}
	return syscall.Flock(int(hierarchies.Fd()), syscall.LOCK_SH)
}

// MountControllers mounts v1 hierarchies that the host has left out, for tests
// that need their controllers, in the directory that Main made for them. It
// returns the names of those that it mounted, and what takes them away again.
// A controller that the kernel lacks, or that v2 has in use, is left alone; all
// are while other tests run.
func MountControllers(names ...string) (mounted []string, restore func() error) {
	if os.Getenv(inside) == "" {
		return nil, func() error { return nil }
	}
	if syscall.Flock(int(hierarchies.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil, func() error { return nil }
	}
	for _, name := range names {
		dir := filepath.Join(cgroups, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			continue // it is there
		}
		if err := syscall.Mount(name, dir, "cgroup", 0, name); err != nil {
			os.Remove(dir) //nolint:errcheck // an empty directory of a tmpfs
			continue
		}
		mounted = append(mounted, name)
	}
	return mounted, func() error {
		var failed error
		for _, name := range mounted {
			failed = errors.Join(failed, unmountController(name))
		}
		return errors.Join(failed, syscall.Flock(int(hierarchies.Fd()), syscall.LOCK_SH))
	}
}

// unmountController empties a hierarchy and unmounts it until the kernel has
// given the controller back. It does so some time after an unmount that finds
// no cgroups, and removed ones are there for a moment longer, of which nothing
// tells the end: then it is mounted once more.
func unmountController(name string) error {
	dir := filepath.Join(cgroups, name)
	for end := time.Now().Add(time.Minute); ; {
		err := removeCgroups(dir)
		if gone := syscall.Unmount(dir, 0); gone != nil {
			return fmt.Errorf("unmounting the hierarchy of %s: %w", name, errors.Join(err, gone))
		}
		free, look := awaitFree(name)
		if free || look != nil {
			return errors.Join(look, os.Remove(dir))
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("the hierarchy of %s does not go away", name), err)
		}
		if err := syscall.Mount(name, dir, "cgroup", 0, name); err != nil {
			return err
		}
	}
}

// awaitFree looks for two seconds: the kernel takes down an empty hierarchy
// after a grace period of RCU.
func awaitFree(name string) (bool, error) {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		free, err := isFree(name)
		if free || err != nil || time.Now().After(end) {
			return free, err
		}
	}
}

// isFree reports whether a controller is in no v1 hierarchy, cgroups(7).
func isFree(name string) (bool, error) {
	table, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return fields[1] == "0", nil
		}
	}
	return true, nil
}

// removeCgroups removes all below dir, the deepest first.
func removeCgroups(dir string) error {
	var list []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != dir {
			list = append(list, path)
		}
		return err
	})
	for _, path := range slices.Backward(list) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}
