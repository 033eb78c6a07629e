package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// controllers is what crun reads to refuse hybrid hosts: it wants no
// controller at all to be left to cgroup v2. Some kernels leave hugetlb there
// that nobody uses.
const controllers = cgroups + "/unified/cgroup.controllers"

// inside marks the second run of the test binary.
const inside = "ENGINED_TEST_INSIDE"

// Main runs a package's tests where every reference runtime works. On a host
// that crun would refuse that is a mount namespace of the tests' own in which
// controllers is empty; all runtimes then run there, for a fair comparison.
func Main(m *testing.M) int {
	left, _ := os.ReadFile(controllers)
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if len(bytes.TrimSpace(left)) > 0 && os.Getenv(inside) == "" {
		return again()
	}
	if err := share(); err != nil {
		fmt.Fprintln(os.Stderr, "waiting for other tests to leave the cgroup hierarchies:", err)
		return 1
	}
	if os.Getenv(inside) == "" {
		return m.Run()
	}
	if err := ownCgroups(); err != nil {
		fmt.Fprintln(os.Stderr, "making a directory of hierarchies of the tests' own:", err)
		return 1
	}
	return m.Run()
}

// again runs this binary once more in a new mount namespace.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// ownCgroups puts a directory of hierarchies over the host's, for this
// namespace only: what tests mount there is in no other engine's way.
// controllers is empty in it.
func ownCgroups() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making all mounts private: %w", err)
	}
	dir, err := os.MkdirTemp("", "cgroups")
	if err != nil {
		return err
	}
	defer os.Remove(dir) //nolint:errcheck // it is empty once it is moved
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	if err := errors.Join(bindHierarchies(dir), emptyControllers(dir)); err != nil {
		return errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	if err := syscall.Unmount(cgroups, syscall.MNT_DETACH); err != nil {
		return errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	return syscall.Mount(dir, cgroups, "", syscall.MS_MOVE, "")
}

// bindHierarchies makes the hierarchies of cgroups appear in dir, and nothing
// else that lies there.
func bindHierarchies(dir string) error {
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return err
	}
	var parent, stat syscall.Stat_t
	if err := syscall.Stat(cgroups, &parent); err != nil {
		return err
	}
	for _, entry := range entries {
		from, to := filepath.Join(cgroups, entry.Name()), filepath.Join(dir, entry.Name())
		if link, err := os.Readlink(from); err == nil { // cpu -> cpu,cpuacct
			if err := os.Symlink(link, to); err != nil {
				return err
			}
			continue
		}
		if err := syscall.Stat(from, &stat); err != nil {
			return err
		}
		if stat.Dev == parent.Dev { // nothing is mounted there
			continue
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s: %w", from, err)
		}
	}
	return nil
}

// emptyControllers binds an empty file over controllers, in dir.
func emptyControllers(dir string) error {
	empty := filepath.Join(dir, ".empty")
	if err := os.WriteFile(empty, nil, 0o400); err != nil {
		return err
	}
	target := filepath.Join(dir, strings.TrimPrefix(controllers, cgroups))
	return errors.Join(syscall.Mount(empty, target, "", syscall.MS_BIND, ""), os.Remove(empty))
}
