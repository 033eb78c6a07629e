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

// OOMs yields the number of kills whenever it is above known, or above what it
// has yielded before, on the goroutine that ranges over it and once. v1 tells
// that memory has run out before it kills, and also where killing is disabled:
// what is yielded then is one more. OOMs ends when ctx does or the cgroup is
// removed; on v2 already when its last process is gone, because removal itself
// raises no event there.
func (c *Cgroup) OOMs(ctx context.Context, known uint64) (iter.Seq[uint64], error) {
	if c.unified() {
		return c.watchV2(ctx, known)
	}
	dir := c.dirOf("memory")
	if dir == "" {
		return nil, errdefs.FailedPrecondition.Errorf("cannot watch for OOM: the memory controller is not available")
	}
	return c.watchV1(ctx, dir, known)
}

// WatchOOM is OOMs from now on as a channel. Notices that nobody takes become
// one. The channel closes at the end.
func (c *Cgroup) WatchOOM(ctx context.Context) (<-chan struct{}, error) {
	known, err := c.OOMKills()
	if err != nil {
		return nil, err
	}
	ooms, err := c.OOMs(ctx, known)
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
func (c *Cgroup) watchV1(ctx context.Context, dir string, known uint64) (iter.Seq[uint64], error) {
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
	return notices(ctx, file, known, func(known uint64, told bool) (kills uint64, done bool) {
		if told && inode(dir) != first {
			return known, true
		}
		kills, err := c.OOMKills()
		if err == nil && told {
			kills = max(kills, known+1)
		}
		return kills, err != nil
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

// watchV2 has inotify tell when memory.events or cgroup.events changes.
func (c *Cgroup) watchV2(ctx context.Context, known uint64) (iter.Seq[uint64], error) {
	dir := c.location.V2
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an inotify: %w", err)
	}
	file := os.NewFile(uintptr(watch), "oom inotify")
	for _, name := range []string{"memory.events", "cgroup.events"} {
		path := filepath.Join(dir, name)
		if _, err := unix.InotifyAddWatch(watch, path, unix.IN_MODIFY); err != nil {
			file.Close()
			return nil, fmt.Errorf("watching %s: %w", path, err)
		}
	}
	populated := false // has ever been
	return notices(ctx, file, known, func(known uint64, _ bool) (kills uint64, done bool) {
		kills, err := c.OOMKills()
		if err != nil {
			return known, true
		}
		text, err := read(dir, "cgroup.events")
		if err != nil {
			return kills, true
		}
		present := parseFlat(text)["populated"] == 1
		left := populated && !present
		populated = populated || present
		return kills, left
	}), nil
}

// notices owns file: it reads it until ctx ends, which closes the file, and
// looks once before, untold, and after each event.
func notices(ctx context.Context, file *os.File, known uint64, look func(known uint64, told bool) (kills uint64, done bool)) iter.Seq[uint64] {
	stop := context.AfterFunc(ctx, func() { file.Close() })
	return func(yield func(uint64) bool) {
		defer file.Close()
		defer stop()
		var buffer [512]byte // some dozens of inotify events without a name
		for told := false; ; told = true {
			kills, done := look(known, told)
			if kills > known {
				known = kills
				if !yield(known) {
					return
				}
			}
			if done || !await(file, buffer[:]) {
				return
			}
		}
	}
}

// await returns false once file is closed.
func await(file *os.File, buffer []byte) bool {
	for {
		_, err := file.Read(buffer)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}
