package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// Checkpoint is CHECKPOINT-DIR/NAME/config.json, beside the images that CRIU
// writes, as containerd 0.2 has it.
type Checkpoint struct {
	Name        string    `json:"name"`
	Created     time.Time `json:"created"`
	Exit        bool      `json:"exit"`
	TCP         bool      `json:"tcp"`
	UnixSockets bool      `json:"unixSockets"`
	Shell       bool      `json:"shell"`
	EmptyNS     []string  `json:"emptyNS,omitempty"`
}

const checkpointFile = "config.json"

// checkpointLimit is how long saving may take: it writes all of the memory.
const checkpointLimit = 10 * time.Minute

// checkpointDir returns dir, by default the bundle's checkpoints.
func (c *Container) checkpointDir(dir string) string {
	if dir == "" {
		return filepath.Join(c.record.Bundle, "checkpoints")
	}
	return dir
}

// Checkpoint saves the container below dir. A checkpoint that fails leaves
// nothing.
func (c *Container) Checkpoint(ctx context.Context, dir string, wanted Checkpoint) (err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	dir = c.checkpointDir(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the checkpoints' directory: %w", err)
	}
	path := filepath.Join(dir, wanted.Name)
	err = os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return errdefs.AlreadyExists.Coded(errdefs.NameTaken, wanted.Name, "checkpoint %s exists already", wanted.Name)
	}
	if err != nil {
		return fmt.Errorf("making the checkpoint's directory: %w", err)
	}
	undo.Add("remove the checkpoint", func(context.Context) error { return os.RemoveAll(path) })
	if err := shim.WriteFile(filepath.Join(path, checkpointFile), wanted); err != nil {
		return fmt.Errorf("writing the checkpoint's %s: %w", checkpointFile, err)
	}
	return c.invokeWithin(ctx, checkpointLimit, checkpointArgs(path, wanted, c.record.ID)...)
}

func checkpointArgs(path string, wanted Checkpoint, id string) []string {
	args := []string{"checkpoint", "--image-path", path, "--work-path", filepath.Join(path, "criu.work")}
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"--leave-running", !wanted.Exit}, {"--tcp-established", wanted.TCP},
		{"--ext-unix-sk", wanted.UnixSockets}, {"--shell-job", wanted.Shell},
	} {
		if flag.set {
			args = append(args, flag.name)
		}
	}
	for _, namespace := range wanted.EmptyNS {
		args = append(args, "--empty-ns", namespace)
	}
	return append(args, id)
}

// Checkpoints lists those below dir. Directories that are none are passed over.
func (c *Container) Checkpoints(dir string) ([]Checkpoint, error) {
	dir = c.checkpointDir(dir)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing checkpoints: %w", err)
	}
	var found []Checkpoint
	for _, entry := range entries {
		var one Checkpoint
		if err := shim.ReadFile(filepath.Join(dir, entry.Name(), checkpointFile), &one); err == nil && one.Name == entry.Name() {
			found = append(found, one)
		}
	}
	return found, nil
}

// DeleteCheckpoint removes a checkpoint.
func (c *Container) DeleteCheckpoint(dir, name string) error {
	path := filepath.Join(c.checkpointDir(dir), name)
	if _, err := os.Stat(filepath.Join(path, checkpointFile)); err != nil {
		return errdefs.NotFound.Errorf("no such checkpoint: %s", name)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("removing checkpoint %s: %w", name, err)
	}
	return nil
}
