package cgroup

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// OOMKills returns how many processes the kernel has killed for lack of memory.
func (c *Cgroup) OOMKills() (uint64, error) {
	dir, file := c.dirOf("memory"), "memory.oom_control"
	if c.unified() {
		dir, file = c.location.V2, "memory.events"
	}
	if dir == "" {
		return 0, nil
	}
	text, err := read(dir, file)
	if err != nil && !gone(err) {
		return 0, fmt.Errorf("reading %s/%s: %w", dir, file, err)
	}
	return parseFlat(text)["oom_kill"], nil
}

// OOMs yields whenever the kernel runs out of the cgroup's memory, on the
// goroutine that ranges over it and once. It ends when ctx does or the cgroup is
// removed; on v2 already when its last process is gone, because removal itself
// raises no event there.
func (c *Cgroup) OOMs(ctx context.Context) (iter.Seq[struct{}], error) {
	if c.unified() {
		return watchV2(ctx, c.location.V2)
	}
	dir := c.dirOf("memory")
	if dir == "" {
		return nil, errdefs.FailedPrecondition.Errorf("cannot watch for OOM: the memory controller is not available")
	}
	return watchV1(ctx, dir)
}

// WatchOOM is OOMs as a channel. Notices that nobody takes become one. The
// channel closes at the end.
func (c *Cgroup) WatchOOM(ctx context.Context) (<-chan struct{}, error) {
	ooms, err := c.OOMs(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		for range ooms {
			select {
			case out <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	return out, nil
}

// watchV1 registers an eventfd with cgroup.event_control, kernel doc
// cgroup-v1/memory.rst section 9. The kernel signals it on OOM and on removal.
func watchV1(ctx context.Context, dir string) (iter.Seq[struct{}], error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	file := os.NewFile(uintptr(event), "oom eventfd")
	first := inode(dir)
	control, err := open(filepath.Join(dir, "memory.oom_control"), unix.O_RDONLY)
	if err == nil {
		err = write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", event, control))
		unix.Close(control)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("watching %s/memory.oom_control: %w", dir, err)
	}
	return notices(ctx, file, func() (oom, done bool) {
		removed := inode(dir) != first
		return !removed, removed
	}), nil
}

// inode tells a directory from a later one of the same name, as when a
// container is started again. It is 0 if there is none.
func inode(dir string) uint64 {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0
	}
	return st.Ino
}

// watchV2 has inotify tell when memory.events or cgroup.events changes, and
// compares the count of kills.
func watchV2(ctx context.Context, dir string) (iter.Seq[struct{}], error) {
	path := filepath.Join(dir, "memory.events")
	text, err := read(dir, "memory.events")
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	seen := parseFlat(text)["oom_kill"]
	populated := false // has ever been
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an inotify: %w", err)
	}
	file := os.NewFile(uintptr(watch), "oom inotify")
	for _, name := range []string{path, filepath.Join(dir, "cgroup.events")} {
		if _, err := unix.InotifyAddWatch(watch, name, unix.IN_MODIFY); err != nil {
			file.Close()
			return nil, fmt.Errorf("watching %s: %w", name, err)
		}
	}
	if text, err = read(dir, "cgroup.events"); err == nil {
		populated = parseFlat(text)["populated"] == 1
	}
	return notices(ctx, file, func() (oom, done bool) {
		text, err := read(dir, "memory.events")
		if err != nil {
			return false, true
		}
		now := parseFlat(text)["oom_kill"]
		oom = now > seen
		seen = now
		text, err = read(dir, "cgroup.events")
		if err != nil {
			return oom, true
		}
		left := populated && parseFlat(text)["populated"] == 0
		populated = populated || parseFlat(text)["populated"] == 1
		return oom, left
	}), nil
}

// notices owns file: it reads it until ctx ends, which closes the file, and
// judges what each event means.
func notices(ctx context.Context, file *os.File, judge func() (oom, done bool)) iter.Seq[struct{}] {
	stop := context.AfterFunc(ctx, func() { file.Close() })
	return func(yield func(struct{}) bool) {
		defer file.Close()
		defer stop()
		var buffer [512]byte // some dozens of inotify events without a name
		for {
			_, err := file.Read(buffer[:])
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			oom, done := judge()
			if oom && !yield(struct{}{}) || done {
				return
			}
		}
	}
}
