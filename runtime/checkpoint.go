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

const checkpointFile = "config.json"

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
	if err := shim.WriteFile(filepath.Join(path, checkpointFile), wanted); err != nil {
		return fmt.Errorf("writing the checkpoint's %s: %w", checkpointFile, err)
	}
	work := filepath.Join(path, shim.CRIUDir)
	err = c.invokeWithin(ctx, checkpointLimit, checkpointArgs(path, work, wanted, c.record.ID)...)
	return withReason(err, filepath.Join(work, "dump.log"))
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
		var one Checkpoint
		if err := shim.ReadFile(filepath.Join(dir, entry.Name(), checkpointFile), &one); err == nil && one.Name == entry.Name() {
			found = append(found, one)
		}
	}
	return found, nil
}

// DeleteCheckpoint removes a checkpoint, and nothing else: a bundle has a file of
// that name too.
func (c *Container) DeleteCheckpoint(dir, name string) error {
	path := filepath.Join(c.checkpointDir(dir), name)
	var saved Checkpoint
	if err := shim.ReadFile(filepath.Join(path, checkpointFile), &saved); err != nil || saved.Name != name {
		return noCheckpoint(name, c.checkpointDir(dir))
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("removing checkpoint %s: %w", name, err)
	}
	return nil
}
