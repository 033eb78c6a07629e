package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// controllers is what crun reads to refuse hybrid hosts: it wants no
// controller at all to be left to cgroup v2. Some kernels leave hugetlb there
// that nobody uses.
const controllers = "/sys/fs/cgroup/unified/cgroup.controllers"

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
	if err := hideControllers(); err != nil {
		fmt.Fprintln(os.Stderr, "hiding", controllers, "from crun:", err)
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

// hideControllers binds an empty file over controllers, for this namespace only.
func hideControllers() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making all mounts private: %w", err)
	}
	dir, err := os.MkdirTemp("", "controllers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o400); err != nil {
		return err
	}
	return syscall.Mount(empty, controllers, "", syscall.MS_BIND, "")
}
