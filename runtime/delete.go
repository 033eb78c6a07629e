package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// lostStatus is the exit status of a process whose shim died: as if killed.
const lostStatus = 128 + int(unix.SIGKILL)

// doomedFile is there once a container is to go whatever its shim still does:
// the shim of a creation that was cut off may start the process after all, and
// a later supervisor would take the container for one that was asked for.
const doomedFile = "doomed"

// Doom records that the container is to go.
func (c *Container) Doom() error {
	return os.WriteFile(filepath.Join(c.dir, doomedFile), nil, 0o600)
}

// Doomed reports whether the container is to go. A directory of that name is a
// process's, which may be called so.
func (c *Container) Doomed() bool {
	about, err := os.Lstat(filepath.Join(c.dir, doomedFile))
	return err == nil && about.Mode().IsRegular()
}

// Dismiss has the shim delete the container and end. With a dead shim the
// runtime is called directly. The container's directory stays, see Remove.
func (c *Container) Dismiss(ctx context.Context) error {
	// Asked first, since a shim that is stuck shows it sooner so.
	err := c.hello(ctx)
	if err == nil {
		err = c.askDelete(ctx)
	}
	if errdefs.CodeOf(err) == errdefs.ShimLost {
		return c.Raze(ctx)
	}
	if err != nil {
		return err
	}
	failpoint.At("runtime-shim-deleted")
	return c.awaitShim(ctx)
}

func (c *Container) askDelete(ctx context.Context) error {
	return c.ask(ctx, c.host.Limits.Runtime, "delete", func(ctx context.Context, client *shim.Client) error {
		return client.Delete(ctx)
	})
}

// End is Dismiss for a container that must go: a shim that does not answer or
// cannot do it is killed.
func (c *Container) End(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, c.host.Limits.Runtime/2)
	defer cancel()
	if err := c.Dismiss(bounded); err == nil {
		return nil
	}
	return c.Raze(ctx)
}

// awaitShim waits for the shim's death and gives back the connection.
func (c *Container) awaitShim(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, c.host.Limits.Shim)
	defer cancel()
	c.mu.Lock()
	process := c.shim
	c.mu.Unlock()
	if process != nil {
		if err := process.wait(bounded); err != nil {
			return errdefs.Unavailable.Coded(errdefs.ShimStuck, c.record.ID,
				"the shim of container %s has deleted it but does not end: %w", c.record.ID, err)
		}
	}
	c.Close()
	return nil
}

// Raze kills shim and container and has the runtime delete what it keeps.
func (c *Container) Raze(ctx context.Context) error {
	err := c.killShim(ctx) // what is stuck there must not keep the container alive
	failpoint.At("runtime-shim-killed")
	c.adoptOrphans()
	err = errors.Join(err, c.killCgroup(ctx), c.invoke(ctx, nil, "delete", "--force", c.record.ID))
	reapStrays()
	return err
}

// killShim kills the shim, then the runtime that it may be waiting for: not before, or it
// might call another.
func (c *Container) killShim(ctx context.Context) error {
	c.mu.Lock()
	process := c.shim
	c.mu.Unlock()
	if process != nil {
		if err := process.kill(); err != nil {
			return fmt.Errorf("killing shim %d: %w", process.pid, err)
		}
	}
	return errors.Join(c.awaitShim(ctx), c.endCalls(ctx))
}

// Bury kills what a dead shim has left and writes lost.json for every process
// whose end nobody saw.
func (c *Container) Bury(ctx context.Context) error {
	razed := c.Raze(ctx)
	processes, err := c.readProcesses()
	if err != nil {
		return errors.Join(razed, err)
	}
	for _, p := range processes {
		if p.Exit != nil || p.Started == nil {
			continue
		}
		lost := Exit{Status: lostStatus, Signal: int(unix.SIGKILL), Time: time.Now(),
			Reason: "the shim died, and with it the process was killed"}
		if err := shim.WriteFile(c.processFile(p.Name, shim.LostFile), lost); err != nil {
			razed = errors.Join(razed, fmt.Errorf("recording the loss of process %s: %w", p.Name, err))
		}
	}
	return razed
}

// removeHalfMade removes what a runtime that was killed before it wrote its
// state left of it, which no delete of its own finds: runc's directory, where a
// copy of runc itself may be mounted.
func (c *Container) removeHalfMade() {
	if c.record.Runtime == "" || c.record.ID == "" {
		return // a directory of which nothing was read; its name could be a runtime's
	}
	dir := filepath.Join(c.host.runtimeRoot(c.record.Runtime), c.record.ID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		if name := entry.Name(); name == "state.json" || name == "status" { // runc's and ocirun's; crun's
			return
		}
	}
	for _, entry := range entries {
		_ = unix.Unmount(filepath.Join(dir, entry.Name()), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // if it is mounted
	}
	if err := os.RemoveAll(dir); err != nil {
		c.host.Logger.Warn("removing what a killed runtime left", "container", c.record.ID, "error", err)
	}
}

// Remove makes the container's directory disappear at once, then removes what
// was in it.
func (c *Container) Remove() error {
	failpoint.At("runtime-shim-ended")
	c.removeHalfMade()
	trash := filepath.Join(c.host.StateDir, fmt.Sprintf("%s%s-%d", trashPrefix, c.record.ID, time.Now().UnixNano()))
	if err := os.Rename(c.dir, trash); err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		return fmt.Errorf("removing the container's directory: %w", err)
	}
	failpoint.At("runtime-directory-renamed")
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("removing the container's directory: %w", err)
	}
	return nil
}
