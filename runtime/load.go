package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// trashPrefix marks directories that are being removed. No id begins with a dot.
const trashPrefix = ".trash-"

// Process is what a container's directory says of one process.
type Process struct {
	Name    string
	Request Request
	Spec    *specs.Process // nil for init, whose is in the bundle
	Started *Started       // nil: not started
	Exit    *Exit          // nil: not exited
}

// IDs lists the directories that may be containers and finishes the removal of
// those that are not any more.
func (h *Host) IDs() ([]string, error) {
	entries, err := os.ReadDir(h.StateDir)
	if err != nil {
		return nil, fmt.Errorf("listing the state directory: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasPrefix(name, trashPrefix):
			if err := os.RemoveAll(filepath.Join(h.StateDir, name)); err != nil {
				h.Logger.Warn("removing what is left of a container", "directory", name, "error", err)
			}
		case entry.IsDir() && !strings.HasPrefix(name, "."):
			ids = append(ids, name)
		}
	}
	return ids, nil
}

// Load reads a container that an earlier supervisor made and connects to its
// shim if that is alive. It waits for no shim: [Container.Next] says hello.
func (h *Host) Load(ctx context.Context, id string) (*Container, []Process, error) {
	c := &Container{host: h, dir: h.dir(id)}
	if err := shim.ReadFile(filepath.Join(c.dir, shim.ContainerFile), &c.record); err != nil {
		return nil, nil, err
	}
	if c.record.ID != id {
		return nil, nil, errdefs.DataLoss.Errorf("%s names container %q", shim.ContainerFile, c.record.ID)
	}
	if !filepath.IsAbs(c.record.Bundle) || !filepath.IsAbs(c.record.Runtime) {
		return nil, nil, errdefs.DataLoss.Errorf("%s has bundle %q and runtime %q, expected absolute paths", shim.ContainerFile, c.record.Bundle, c.record.Runtime)
	}
	processes, err := c.readProcesses()
	if err != nil {
		return nil, nil, err
	}
	c.init.Store(processes[0].Started)
	if err := c.findShim(); err != nil {
		return nil, nil, err
	}
	if err := c.connect(ctx); err != nil && c.ShimPid() != 0 {
		h.Logger.Warn("a living shim cannot be reached", "container", id, "error", err)
	}
	return c, processes, nil
}

// Unborn reports whether a directory is one that Create had begun to lay when
// its supervisor was killed: nothing has run in it.
func (h *Host) Unborn(id string) bool {
	entries, err := os.ReadDir(h.dir(id))
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if name := entry.Name(); name != Init && name != shim.ContainerFile+".tmp" {
			return false
		}
	}
	return true
}

// Discard removes a directory that is Unborn.
func (h *Host) Discard(id string) error {
	c := &Container{host: h, dir: h.dir(id), record: shim.Container{ID: id}}
	return c.Remove()
}

// findShim looks for the shim that shim.json names. Without the file the shim
// was killed, or is killed soon, before it had anything to do.
func (c *Container) findShim() error {
	var self shim.Self
	err := shim.ReadFile(filepath.Join(c.dir, shim.SelfFile), &self)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := findShim(self)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shim = found
	return err
}

// readProcesses reads every process's files, init first.
func (c *Container) readProcesses() ([]Process, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	init, err := c.Process(Init)
	if err != nil {
		return nil, err
	}
	processes := []Process{init}
	for _, entry := range entries {
		if !entry.IsDir() || entry.Name() == Init {
			continue
		}
		process, err := c.Process(entry.Name())
		if err != nil {
			c.host.Logger.Warn("a process's directory is unreadable and skipped", "container", c.record.ID, "process", entry.Name(), "error", err)
			continue
		}
		processes = append(processes, process)
	}
	return processes, nil
}

// Process reads what the directory says of one process.
func (c *Container) Process(name string) (Process, error) {
	p := Process{Name: name}
	if err := shim.ReadFile(c.processFile(name, shim.RequestFile), &p.Request); err != nil {
		return p, err
	}
	if name != Init {
		p.Spec = &specs.Process{}
		if err := shim.ReadFile(c.processFile(name, shim.ProcessFile), p.Spec); err != nil {
			return p, err
		}
	}
	var started Started
	switch err := shim.ReadFile(c.processFile(name, shim.StartedFile), &started); {
	case err == nil:
		p.Started = &started
	case !errors.Is(err, fs.ErrNotExist):
		return p, err
	}
	switch exit, err := c.Exit(name); {
	case err == nil:
		p.Exit = &exit
	case errdefs.KindOf(err) != errdefs.NotFound:
		return p, err
	}
	return p, nil
}

// ErrShimDead says that the shim is dead and will tell nothing more.
var ErrShimDead = errors.New("the shim is dead")

// reconnectDelay is the pause before a living shim that has hung up is called again,
// and before one that has refused Hello is asked again.
const reconnectDelay = time.Second

// Next waits until a process has exited and returns its name, or "" when any
// may have: look at all of them. It ends with ErrShimDead or ctx's error. One
// goroutine may be in Next at a time.
func (c *Container) Next(ctx context.Context) (string, error) {
	if !c.greeted {
		return "", c.greet(ctx)
	}
	client, err := c.connected()
	if err != nil {
		return "", c.reconnect(ctx)
	}
	for {
		note, err := client.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			c.greeted = false
			return "", c.reconnect(ctx)
		case err != nil:
			return "", err
		case note.Exited != nil:
			return note.Exited.Process, nil
		case note.LogLost != nil:
			c.host.Logger.Warn("log lines are lost", "container", c.record.ID, "process", note.LogLost.Process,
				"lines", note.LogLost.Lines, "reason", note.LogLost.Reason)
		}
	}
}

// greet says hello and waits for the answer for as long as the shim lives: one
// that is stopped is not dead.
func (c *Container) greet(ctx context.Context) error {
	client, err := c.connected()
	if err != nil {
		return c.reconnect(ctx)
	}
	_, err = client.Hello(ctx)
	switch {
	case err == nil:
		c.greeted = true
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errdefs.KindOf(err) == errdefs.Unavailable: // the connection has ended
		return c.reconnect(ctx)
	}
	return c.refused(ctx, client, err)
}

// refused pauses after a shim has answered Hello with an error. It may do all else
// that it is asked, so the connection stays; of exits it tells nothing, and Next's
// caller looks for them each time.
func (c *Container) refused(ctx context.Context, client *shim.Client, cause error) error {
	c.host.Logger.Warn("a shim refuses to be greeted and is asked again", "container", c.record.ID, "error", cause)
	timer := time.NewTimer(reconnectDelay)
	defer timer.Stop()
	select {
	case <-client.Done():
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err()
}

// reconnect finds out whether a shim that hung up is dead, and calls it again
// if it is not.
func (c *Container) reconnect(ctx context.Context) error {
	c.mu.Lock()
	process, client := c.shim, c.client
	c.client = nil
	c.mu.Unlock()
	if client != nil {
		client.Close()
	}
	if process == nil {
		return ErrShimDead
	}
	timer := time.NewTimer(reconnectDelay)
	defer timer.Stop()
	select {
	case <-process.exited():
		return ErrShimDead
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	c.host.Logger.Warn("a living shim has hung up and is called again", "container", c.record.ID, "pid", process.pid)
	if err := c.connect(ctx); err != nil {
		c.host.Logger.Warn("calling a shim again", "container", c.record.ID, "error", err)
	}
	return ctx.Err()
}

// Close ends the connection. Container and shim go on.
func (c *Container) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}
