package layer

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confined runs work on a thread of its own that may touch files below dir and
// nowhere else, and has few of root's capabilities. What work has open already
// stays open. The thread keeps its bonds, so it ends with the work: a goroutine
// that is never unlocked takes its thread along.
//
// The kernel's part is Landlock, as of Linux 5.19 (before, links from one
// directory to another were refused in any case). Where it is missing, dir is
// kept to by the way names are resolved alone, see doc.go.
func confined(dir string, work func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := errors.Join(landlock(dir), dropCapabilities())
		if err == nil {
			err = work()
		}
		result <- err
	}()
	return <-result
}

// landlock denies the calling thread every access to files but below dir.
func landlock(dir string) error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	const linking = 2 // the first that allows links between directories
	if errno != 0 || version < linking {
		return nil // not built in, not enabled at boot (lsm=), or too old
	}
	access := uint64(unix.LANDLOCK_ACCESS_FS_REFER<<1 - 1) // all of the second version
	rules, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&access)), unsafe.Sizeof(access), 0)
	if errno != 0 {
		return fmt.Errorf("landlock: making rules: %w", errno)
	}
	defer unix.Close(int(rules))
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer unix.Close(parent)
	below := unix.LandlockPathBeneathAttr{Allowed_access: access &^ unix.LANDLOCK_ACCESS_FS_EXECUTE, Parent_fd: int32(parent)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, rules, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&below)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: adding %s: %w", dir, errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rules, 0, 0); errno != 0 {
		return fmt.Errorf("landlock: restricting the thread: %w", errno)
	}
	return nil
}

// unpackCapabilities are what giving files their owners, modes and attributes
// takes; SYS_ADMIN is for trusted.overlay.opaque.
const unpackCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER |
	1<<unix.CAP_FSETID | 1<<unix.CAP_MKNOD | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_RESOURCE

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for i, keep := range []uint32{unpackCapabilities, 0} {
		data[i].Effective &= keep
		data[i].Permitted &= keep
		data[i].Inheritable = 0
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}
