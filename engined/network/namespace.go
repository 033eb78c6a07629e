package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// makeNamespace makes a network namespace and binds it to path, a new file.
func makeNamespace(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	made := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it its
		// hold on the namespace.
		runtime.LockOSThread()
		made <- bindNewNamespace(path)
	}()
	if err := <-made; err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func bindNewNamespace(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare(CLONE_NEWNET): %w", err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the namespace to %s: %w", path, err)
	}
	return nil
}

// removeNamespace unbinds and removes path; the kernel ends the namespace when
// its last process has. Absent is fine.
func removeNamespace(path string) error {
	// EINVAL: the file is there but nothing is mounted on it.
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
