package criu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// criusLock is what criu feeds to iptables-restore.
const criusLock = "*filter\n:CRIU - [0:0]\n-I INPUT -j CRIU\n-I OUTPUT -j CRIU\n" +
	"-A CRIU -m mark --mark 0xC114 -j ACCEPT\n-A CRIU -j DROP\nCOMMIT\n"

// lockable returns the path of a new network namespace.
func lockable(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for i := range tables {
		if _, err := exec.LookPath(tables[i].restore); err != nil {
			t.Skip("needs iptables")
		}
	}
	ready, end := make(chan string, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		ready <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-end
	}()
	t.Cleanup(func() { close(end) })
	return <-ready
}

// lock locks it as criu does, with what the host has of iptables.
func lock(t *testing.T, namespace string) {
	t.Helper()
	err := (&Lock{namespace: namespace}).inside(func() error {
		for i := range tables {
			cmd := exec.Command(tables[i].restore, "-w", "--noflush")
			cmd.Stdin = strings.NewReader(criusLock)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Skipf("criu's rules cannot be set here: %v", err)
	}
}

func wantLocks(t *testing.T, namespace string, want int) {
	t.Helper()
	found, err := FindLock(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tables {
		if found.found[i] != want {
			t.Errorf("%s finds %d locks, want %d", tables[i].save, found.found[i], want)
		}
	}
}

func TestLocksAreCountedAndTakenAway(t *testing.T) {
	namespace := lockable(t)
	wantLocks(t, namespace, 0)
	fresh, err := FindLock(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	lock(t, namespace)
	dumped, err := FindLock(t.Context(), namespace)
	if err != nil {
		t.Fatal(err)
	}
	lock(t, namespace)
	twice, err := FindLock(t.Context(), namespace) // by the dumps of two containers
	if err != nil {
		t.Fatal(err)
	}
	lock(t, namespace)
	wantLocks(t, namespace, 3)
	for _, step := range []struct {
		name string
		call func(context.Context) error
		left int
	}{
		{"one of two is restored: unlock", twice.Single, 2},
		{"one of two is restored: end", twice.Opened, 1},
		{"the other one: unlock", dumped.Single, 1},
		{"again", dumped.Single, 1},
		{"it fails, and criu has not unlocked", lockThen(t, namespace, dumped.Reset), 1},
		{"it works, and criu has not unlocked", lockThen(t, namespace, dumped.Opened), 0},
		{"and once more", dumped.Opened, 0},
		{"one of nothing fails", lockThen(t, namespace, fresh.Reset), 0},
		{"and works", lockThen(t, namespace, fresh.Single), 1},
		{"at last", fresh.Opened, 0},
	} {
		if err := step.call(t.Context()); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		wantLocks(t, namespace, step.left)
	}
	lock(t, namespace) // the chain is gone with the last one, and can be made anew
	wantLocks(t, namespace, 1)
}

func lockThen(t *testing.T, namespace string, call func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		lock(t, namespace)
		return call(ctx)
	}
}

func TestLockOfNoNamespace(t *testing.T) {
	if _, err := FindLock(t.Context(), "/proc/self/ns/none"); err == nil {
		t.Error("a namespace that is not there")
	}
}
