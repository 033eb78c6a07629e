package cgroup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// Freeze stops every process in the cgroup and returns when they are stopped.
// If ctx ends first they are thawed again.
func (c *Cgroup) Freeze(ctx context.Context) error {
	var err error
	switch dir := c.FreezerDir(); {
	case dir == "":
		return errdefs.NotImplemented.Errorf("cannot freeze: the freezer controller is not mounted")
	case c.unified():
		err = freezeV2(ctx, dir)
	default:
		err = freezeV1(ctx, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("freezing cgroup: %w", err), c.thaw())
	}
	return nil
}

// Thaw lets the processes go on. A cgroup that is gone, or was never frozen, is
// fine.
func (c *Cgroup) Thaw(context.Context) error { return c.thaw() }

// thaw takes effect at once on v1 and v2; there is nothing to wait for.
func (c *Cgroup) thaw() error {
	dir := c.FreezerDir()
	if dir == "" {
		return nil
	}
	file, value := "freezer.state", "THAWED"
	if c.unified() {
		file, value = "cgroup.freeze", "0"
	}
	err := write(dir, file, value)
	if err != nil && !gone(err) {
		return fmt.Errorf("thawing cgroup: %w", err)
	}
	return nil
}

// gone reports that a cgroup was removed, before or while its file was open.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }

// Frozen reports whether Freeze has been asked for, done or not yet done. A
// cgroup that is gone is not frozen.
func (c *Cgroup) Frozen() (bool, error) {
	dir := c.FreezerDir()
	if dir == "" {
		return false, nil
	}
	file := "freezer.state"
	if c.unified() {
		file = "cgroup.freeze"
	}
	state, err := read(dir, file)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %s/%s: %w", dir, file, err)
	}
	state = strings.TrimSpace(state)
	return state == "FROZEN" || state == "FREEZING" || state == "1", nil
}

// FreezerDir is the directory by which the cgroup is frozen, "" if there is none.
func (c *Cgroup) FreezerDir() string {
	if c.unified() {
		return c.location.V2
	}
	return c.dirOf("freezer")
}

// freezeV1 asks again and again: the v1 freezer has no event, and a process
// that forks while it is frozen can leave the cgroup in FREEZING until FROZEN
// is written once more (kernel doc cgroup-v1/freezer-subsystem.rst).
func freezeV1(ctx context.Context, dir string) error {
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		if err := write(dir, "freezer.state", "FROZEN"); err != nil {
			return err
		}
		state, err := read(dir, "freezer.state")
		if err != nil {
			return err
		}
		if strings.TrimSpace(state) == "FROZEN" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// freezeV2 waits for cgroup.events to say frozen.
func freezeV2(ctx context.Context, dir string) error {
	if err := write(dir, "cgroup.freeze", "1"); err != nil {
		return err
	}
	return waitEvent(ctx, dir, "frozen", 1)
}

// waitEvent waits until a key of v2's cgroup.events has a value. The kernel
// raises POLLPRI on an open file whenever its content changes.
func waitEvent(ctx context.Context, dir, key string, want uint64) error {
	fd, err := open(dir+"/cgroup.events", unix.O_RDONLY)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 256)
	for {
		n, err := unix.Pread(fd, buffer, 0)
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if parseFlat(string(buffer[:n]))[key] == want {
			return nil
		}
		if err := pollPri(ctx, fd); err != nil {
			return err
		}
	}
}

// pollPri waits for POLLPRI on fd. It looks at ctx every 100 ms: a context has
// no descriptor to poll beside.
func pollPri(ctx context.Context, fd int) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
