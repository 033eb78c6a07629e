package runtime

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// Container is one container and its shim. Its methods may be called from many
// goroutines; the caller keeps changes of one container in order.
type Container struct {
	host   *Host
	dir    string
	record shim.Container
	init   atomic.Pointer[Started] // pid and start of init; nil: not read yet

	mu     sync.Mutex   // guards what follows
	shim   *shimProcess // nil: there is none
	client *shim.Client // nil until connected, and after the shim's death

	// greeted is Create's, then Next's own: the shim has answered Hello on this
	// connection.
	greeted bool
}

// ID returns the container's id.
func (c *Container) ID() string { return c.record.ID }

// Record returns what the container was made from.
func (c *Container) Record() shim.Container { return c.record }

// Socket returns the path of the shim's socket, where attach packets go.
func (c *Container) Socket() string { return filepath.Join(c.dir, shim.SocketFile) }

// ShimPid returns the shim's pid, 0 if it is dead.
func (c *Container) ShimPid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shim == nil || c.shim.dead() {
		return 0
	}
	return c.shim.pid
}

func (c *Container) processDir(process string) string { return filepath.Join(c.dir, process) }

func (c *Container) processFile(process, name string) string {
	return filepath.Join(c.dir, process, name)
}

// Exit returns how process ended, or an error of kind NotFound while no file
// says so. exit.json is the shim's word and comes before lost.json.
func (c *Container) Exit(process string) (Exit, error) {
	var exit Exit
	err := shim.ReadFile(c.processFile(process, shim.ExitFile), &exit)
	if err != nil && errors.Is(err, fs.ErrNotExist) {
		err = shim.ReadFile(c.processFile(process, shim.LostFile), &exit)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return exit, errdefs.NotFound.Errorf("process %s of container %s has not exited", process, c.record.ID)
	}
	return exit, err
}

// connected returns the client to ask, or why there is none.
func (c *Container) connected() (*shim.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		return nil, c.lost(errdefs.Unavailable.Errorf("not connected"))
	}
	return c.client, nil
}

// ask makes one request to the shim within limit.
func (c *Container) ask(ctx context.Context, limit time.Duration, what string, request func(context.Context, *shim.Client) error) error {
	client, err := c.connected()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = request(bounded, client)
	switch {
	case err == nil:
		return nil
	case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return errdefs.Unavailable.Coded(errdefs.ShimStuck, c.record.ID,
			"the shim of container %s has not answered %s within %s", c.record.ID, what, limit)
	case gone(client):
		return c.lost(err)
	}
	return err
}

// lost says that the shim is not there to answer.
func (c *Container) lost(cause error) error {
	return errdefs.Unavailable.Coded(errdefs.ShimLost, c.record.ID, "the shim of container %s is gone: %w", c.record.ID, cause)
}

func gone(client *shim.Client) bool {
	select {
	case <-client.Done():
		return true
	default:
		return false
	}
}
