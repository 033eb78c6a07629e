package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// checkpointFile is there once a checkpoint is whole, its other name before that:
// what a kill leaves is not listed and can be deleted.
const (
	checkpointFile = "config.json"
	unfinishedFile = "config.json.unfinished"
)

// checkpointLimit is how long saving may take: it writes all of the memory.
const checkpointLimit = 10 * time.Minute

// checkpointDir returns dir, by default the bundle's checkpoints.
func checkpointDir(dir, bundle string) string {
	if dir == "" {
		return filepath.Join(bundle, "checkpoints")
	}
	return dir
}

func (c *Container) checkpointDir(dir string) string { return checkpointDir(dir, c.record.Bundle) }

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
	unfinished := filepath.Join(path, unfinishedFile)
	if err := shim.WriteFile(unfinished, wanted); err != nil {
		return fmt.Errorf("writing the checkpoint's %s: %w", checkpointFile, err)
	}
	work := filepath.Join(path, shim.CRIUDir)
	if err := c.invokeWithin(ctx, checkpointLimit, checkpointArgs(path, work, wanted, c.record.ID)...); err != nil {
		return withReason(err, filepath.Join(work, "dump.log"))
	}
	if err := os.Rename(unfinished, filepath.Join(path, checkpointFile)); err != nil {
		return fmt.Errorf("finishing the checkpoint: %w", err)
	}
	return nil
}

func checkpointArgs(path, work string, wanted Checkpoint, id string) []string {
	args := []string{"checkpoint", "--image-path", path, "--work-path", work}
	if !wanted.Exit {
		args = append(args, "--leave-running")
	}
	return append(append(args, wanted.flags()...), id)
}

// flags are those that a restore has to be given as the checkpoint was.
func (c Checkpoint) flags() (flags []string) {
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"--tcp-established", c.TCP}, {"--ext-unix-sk", c.UnixSockets}, {"--shell-job", c.Shell},
	} {
		if flag.set {
			flags = append(flags, flag.name)
		}
	}
	for _, namespace := range c.EmptyNS {
		flags = append(flags, "--empty-ns", namespace)
	}
	return flags
}

// resolveCheckpoint completes a request that names a checkpoint.
func resolveCheckpoint(request *Request, bundle string) error {
	if request.Checkpoint == "" {
		return nil
	}
	dir := checkpointDir(request.CheckpointDir, bundle)
	var saved Checkpoint
	err := shim.ReadFile(filepath.Join(dir, request.Checkpoint, checkpointFile), &saved)
	if errors.Is(err, fs.ErrNotExist) {
		return noCheckpoint(request.Checkpoint, dir)
	}
	if err != nil {
		return fmt.Errorf("reading checkpoint %s: %w", request.Checkpoint, err)
	}
	request.CheckpointDir, request.RestoreFlags = dir, saved.flags()
	return nil
}

func noCheckpoint(name, dir string) error {
	return errdefs.NotFound.Errorf("checkpoint: no such checkpoint: %s in %s", name, dir)
}

// withReason adds to the runtime's error, which names criu's log, what criu
// wrote there of errors: the log goes with what the failed call had made.
func withReason(err error, log string) error {
	if err == nil {
		return nil
	}
	file, openErr := os.Open(log)
	if openErr != nil {
		return err // criu was not started
	}
	defer file.Close()
	said, readErr := criuErrors(file)
	if readErr != nil || said == "" {
		return err
	}
	return fmt.Errorf("%w; criu said: %s", err, said)
}

// criuErrors returns the last of the lines that criu marks as errors:
// "(00.012345) Error (criu/file.c:123): text", or without the time.
func criuErrors(log io.Reader) (string, error) {
	const enough = 4
	var errors []string
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if at := strings.Index(lines.Text(), "Error ("); at >= 0 {
			errors = append(errors, strings.TrimSpace(lines.Text()[at:]))
		}
	}
	return strings.Join(errors[max(0, len(errors)-enough):], "; "), lines.Err()
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
		if one, ok := checkpointAt(dir, entry.Name(), checkpointFile); ok {
			found = append(found, one)
		}
	}
	return found, nil
}

// checkpointAt reads the checkpoint name below dir. A bundle has a file of that
// name too.
func checkpointAt(dir, name, file string) (one Checkpoint, ok bool) {
	err := shim.ReadFile(filepath.Join(dir, name, file), &one)
	return one, err == nil && one.Name == name
}

// DeleteCheckpoint removes a checkpoint, also one that was cut off, and nothing
// else.
func (c *Container) DeleteCheckpoint(dir, name string) error {
	dir = c.checkpointDir(dir)
	_, whole := checkpointAt(dir, name, checkpointFile)
	if _, begun := checkpointAt(dir, name, unfinishedFile); !whole && !begun {
		return noCheckpoint(name, dir)
	}
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("removing checkpoint %s: %w", name, err)
	}
	return nil
}
