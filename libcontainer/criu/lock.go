package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is what keeps packets out of a network namespace while its sockets are
// in the images only: rules of criu's that drop what is not its own. A dump
// leaves them there. A restore that is told not to make the namespace's devices
// (Options.EmptyNamespaces) locks it once more, and in the end takes one lock
// away, which fails while there is another: in a namespace that was there all
// the time everything then stays silent. So whoever dumps from or restores into
// a namespace that outlives its containers counts the locks before, and calls
//
//	                  [Lock.Reset]  failed, or the dumped container goes on
//	network-unlock    [Lock.Single] then criu's own unlocking works
//	restored          [Lock.Opened] locks of other containers' dumps stay
type Lock struct {
	namespace string // path
	found     []int  // how many, for each of tables
}

// tables are the programs by which criu sets its rules.
var tables = []struct{ save, restore string }{
	{"iptables-save", "iptables-restore"}, {"ip6tables-save", "ip6tables-restore"},
}

// lockRule is the end of a lock's first rule, as the programs print it.
const lockRule = "-A INPUT -j CRIU"

// FindLock counts the locks of a namespace.
func FindLock(ctx context.Context, namespace string) (*Lock, error) {
	l := &Lock{namespace: namespace, found: make([]int, len(tables))}
	err := l.inside(func() error {
		for i := range tables {
			l.found[i] = locks(ctx, i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Single leaves one lock, for criu to take away, and those of other dumps.
func (l *Lock) Single(ctx context.Context) error {
	return l.leave(ctx, func(found int) int { return max(found, 1) })
}

// Opened leaves one lock less than were found: that of the restored dump.
func (l *Lock) Opened(ctx context.Context) error {
	return l.leave(ctx, func(found int) int { return max(found-1, 0) })
}

// Reset leaves as many locks as were found.
func (l *Lock) Reset(ctx context.Context) error {
	return l.leave(ctx, func(found int) int { return found })
}

func (l *Lock) leave(ctx context.Context, wanted func(found int) int) error {
	return l.inside(func() (err error) {
		for i := range tables {
			err = errors.Join(err, unlock(ctx, i, locks(ctx, i), wanted(l.found[i])))
		}
		return err
	})
}

// locks counts them in the thread's namespace. Where a table cannot be had criu
// has none either.
func locks(ctx context.Context, table int) int {
	out, err := exec.CommandContext(ctx, tables[table].save, "-t", "filter").Output()
	if err != nil {
		slog.Debug("looking for criu's lock: " + tables[table].save + ": " + err.Error())
		return 0
	}
	count := 0
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == lockRule {
			count++
		}
	}
	return count
}

// unlock takes locks away, all at once: one by one would let packets pass.
func unlock(ctx context.Context, table, have, want int) error {
	if have <= want {
		return nil
	}
	var rules strings.Builder
	rules.WriteString("*filter\n")
	if want == 0 {
		rules.WriteString("-F CRIU\n")
	}
	rules.WriteString(strings.Repeat("-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n", have-want))
	if want == 0 {
		rules.WriteString("-X CRIU\n")
	}
	rules.WriteString("COMMIT\n")
	cmd := exec.CommandContext(ctx, tables[table].restore, "-w", "--noflush")
	cmd.Stdin = strings.NewReader(rules.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("taking away criu's lock: %s: %w: %s", tables[table].restore, err, bytes.TrimSpace(out))
	}
	return nil
}

// inside calls f in the namespace, on a thread that is spent on it.
func (l *Lock) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(l.namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err != nil {
			done <- fmt.Errorf("entering the network namespace %q: %w", l.namespace, err)
			return
		}
		done <- f()
	}()
	return <-done
}
