package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// Recipe says what container to make.
type Recipe struct {
	ID          string
	Bundle      string // absolute path
	Runtime     string // name or path; "": the host's
	RuntimeArgs []string
	Labels      []string
	Init        Request
}

// Create makes the container's directory, starts its shim and has it start (or,
// with Init.CreateOnly, create) the first process. On failure nothing is left, or,
// where that cannot be ended, a doomed directory for [Host.Clear].
func (h *Host) Create(ctx context.Context, recipe Recipe) (_ *Container, started Started, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)

	c, err := h.lay(recipe)
	if err != nil {
		return nil, Started{}, err
	}
	undo.Add("end the container and remove its directory", c.Unmake)
	undo.Add("record that the container is to go", func(context.Context) error { return c.Doom() })

	opening, err := c.launch(ctx)
	if err != nil {
		return nil, Started{}, err
	}
	if started, err = c.await(ctx, opening, recipe.Init); err != nil {
		return nil, Started{}, err
	}
	failpoint.At("runtime-init-started")
	return c, started, nil
}

// Unmake undoes a creation. If shim and container cannot be ended the directory
// stays: without it nobody could try again.
func (c *Container) Unmake(ctx context.Context) error {
	defer c.Close()
	if err := c.End(ctx); err != nil && c.mayLive() {
		return fmt.Errorf("ending container %s, whose directory stays until that is done: %w", c.record.ID, err)
	}
	return c.Remove()
}

// mayLive reports whether there is anything of the container that has to be ended: with
// a runtime that cannot even delete there may never have been.
func (c *Container) mayLive() bool {
	if c.ShimPid() != 0 {
		return true
	}
	if started, err := c.initStarted(); err == nil && c.Runs(*started) {
		return true
	}
	_, err := os.Lstat(filepath.Join(c.host.runtimeRoot(c.record.Runtime), c.record.ID))
	return !errors.Is(err, fs.ErrNotExist)
}

// Clear tries again to undo a creation that has left a doomed directory under this id.
func (h *Host) Clear(ctx context.Context, id string) error {
	if left := (&Container{host: h, dir: h.dir(id)}); !left.Doomed() {
		return nil
	}
	c, _, err := h.Load(ctx, id)
	if err == nil {
		err = c.Unmake(ctx)
	}
	if err != nil {
		return fmt.Errorf("undoing an earlier creation of container %s: %w", id, err)
	}
	return nil
}

// lay makes the container's directory with container.json and init/request.json.
func (h *Host) lay(recipe Recipe) (_ *Container, err error) {
	runtime, err := h.ResolveRuntime(recipe.Runtime)
	if err != nil {
		return nil, err
	}
	if err := checkBundle(recipe.Bundle); err != nil {
		return nil, err
	}
	if err := resolveCheckpoint(&recipe.Init, recipe.Bundle); err != nil {
		return nil, err
	}
	c := &Container{host: h, dir: h.dir(recipe.ID), record: shim.Container{
		ID:          recipe.ID,
		Bundle:      recipe.Bundle,
		Runtime:     runtime,
		RuntimeArgs: append(h.rootArgs(runtime), recipe.RuntimeArgs...),
		Labels:      recipe.Labels,
		Created:     time.Now(),
	}}
	err = os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil, errdefs.AlreadyExists.Errorf("container %s: %s exists already", recipe.ID, c.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("making the container's directory: %w", err)
	}
	var undo errdefs.Undo
	defer undo.OnError(&err)
	undo.Add("remove the container's directory", func(context.Context) error { return c.Remove() })
	failpoint.At("runtime-directory-made")
	// init comes first: a directory with container.json has a whole request.
	if err := c.writeRequest(recipe.Init); err != nil {
		return nil, err
	}
	if recipe.Init.Checkpoint != "" {
		if err := os.Mkdir(c.processFile(Init, shim.CRIUDir), 0o700); err != nil {
			return nil, fmt.Errorf("making a directory for criu: %w", err)
		}
	}
	failpoint.At("runtime-request-written")
	if err := os.MkdirAll(c.record.RuntimeArgs[1], 0o700); err != nil {
		return nil, fmt.Errorf("making the runtime's root: %w", err)
	}
	if err := shim.WriteFile(filepath.Join(c.dir, shim.ContainerFile), c.record); err != nil {
		return nil, fmt.Errorf("writing %s: %w", shim.ContainerFile, err)
	}
	failpoint.At("runtime-container-written")
	return c, nil
}

func checkBundle(bundle string) error {
	config := filepath.Join(bundle, "config.json")
	about, err := os.Stat(config)
	if err != nil {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, bundle, "bundle %s: %w", bundle, err)
	}
	if !about.Mode().IsRegular() {
		return errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, bundle, "bundle %s: config.json is not a regular file", bundle)
	}
	return nil
}

// launch gives the container a shim that answers, and is asked to start init. A
// shim that was started ahead may have died since, and may do so unseen until it
// has answered: then another is started.
func (c *Container) launch(ctx context.Context) (*shim.Opening, error) {
	opening, ahead, err := c.launchFrom(ctx, c.host.Reserve)
	if !ahead || errdefs.KindOf(err) != errdefs.Unavailable || errdefs.CodeOf(err) == errdefs.ShimStuck {
		return opening, err
	}
	c.host.Logger.Warn("a shim that was started ahead has died", "container", c.record.ID, "error", err)
	if err := errors.Join(c.awaitShim(ctx), os.Remove(c.Socket())); err != nil {
		return nil, err
	}
	opening, _, err = c.launchFrom(ctx, nil)
	return opening, err
}

// launchFrom binds the socket, leaves there what the shim is to do, and takes or
// starts the one that listens on it: it then finds its work without a wait. It
// reports whether the shim was started ahead.
func (c *Container) launchFrom(ctx context.Context, reserve *Reserve) (opening *shim.Opening, ahead bool, err error) {
	listener, err := listen(c.dir)
	if err != nil {
		return nil, false, err
	}
	// Ours is closed before an answer is waited for: only the shim's then keeps
	// the socket alive, so its death ends the connection.
	defer listener.Close()
	failpoint.At("runtime-socket-bound")
	if err := c.connect(ctx); err != nil {
		return nil, false, err
	}
	if opening, err = c.open(ctx); err != nil {
		return nil, false, err
	}
	failpoint.At("runtime-start-asked")
	process, ahead, err := c.spawnShim(listener, reserve)
	if err != nil {
		return nil, false, err
	}
	failpoint.At("runtime-shim-started")
	c.mu.Lock()
	c.shim = process
	c.mu.Unlock()
	listener.Close()
	if err := c.awaitHello(ctx, opening); err != nil {
		return nil, ahead, c.withShimLog(err)
	}
	c.greeted = true
	failpoint.At("runtime-shim-greeted")
	return opening, ahead, nil
}

// open asks a shim that may not be there yet to say hello and to start init.
func (c *Container) open(ctx context.Context) (opening *shim.Opening, err error) {
	err = c.ask(ctx, c.host.Limits.Shim, "hello", func(ctx context.Context, client *shim.Client) (err error) {
		opening, err = client.Open(ctx, Init)
		return err
	})
	return opening, err
}

// awaitHello waits until the shim has said hello: our connection hears of exits.
func (c *Container) awaitHello(ctx context.Context, opening *shim.Opening) error {
	return c.ask(ctx, c.host.Limits.Shim, "hello", func(ctx context.Context, _ *shim.Client) error {
		_, err := opening.Greeted(ctx)
		return err
	})
}

// connect opens the connection to the shim. The kernel answers, not the shim.
func (c *Container) connect(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, c.host.Limits.Shim)
	defer cancel()
	client, err := shim.Connect(bounded, c.Socket())
	if err != nil {
		return fmt.Errorf("connecting to the shim: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		c.client.Close()
	}
	c.client = client
	return nil
}

// hello makes our connection the one that hears of exits.
func (c *Container) hello(ctx context.Context) error {
	return c.ask(ctx, c.host.Limits.Shim, "hello", func(ctx context.Context, client *shim.Client) error {
		_, err := client.Hello(ctx)
		return err
	})
}

// withShimLog adds the end of shim.log, which is where a shim says why it died.
func (c *Container) withShimLog(err error) error {
	const enough = 2 << 10
	said, readErr := os.ReadFile(filepath.Join(c.dir, shim.LogFile))
	if readErr != nil || len(said) == 0 {
		return err
	}
	said = said[max(0, len(said)-enough):]
	return fmt.Errorf("%w; the shim said: %s", err, strings.TrimSpace(string(said)))
}
