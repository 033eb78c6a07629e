package oci

import (
	"encoding/binary"
	"os/exec"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// family reaps the orphans of the runtimes that a test kills. Who would inherit
// them otherwise may take seconds, and a pid namespace does not end before all
// of its processes are reaped. It does so only while the test is in run or
// reap: other children of the test are waited for by who started them.
type family struct{}

// adopt makes this process inherit orphans until the test ends.
func adopt(t *testing.T) family {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	return family{}
}

// run is cmd.Run, and reaps meanwhile.
func (f family) run(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond): // a wait for any child would not end with the command
				f.reap(cmd.Process.Pid)
			}
		}
	}()
	err := cmd.Wait()
	close(stop)
	<-done
	return err
}

// reap takes the children that have ended, up to the one that somebody waits for.
func (f family) reap(own int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		// wait(2): the pid is the first of the fields that depend on the signal,
		// which on 64-bit machines are at 16.
		pid := int(int32(binary.NativeEndian.Uint32((*[20]byte)(unsafe.Pointer(&info))[16:])))
		if err != nil || pid == 0 || pid == own {
			return
		}
		if _, err = unix.Wait4(pid, nil, 0, nil); err != nil {
			return
		}
	}
}
