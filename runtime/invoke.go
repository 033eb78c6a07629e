package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// maxSaid bounds what is read of a runtime's log and standard error.
const maxSaid = 64 << 10

// invoke runs the OCI runtime on the container. The runtime's log goes to a
// memory file, so that its last error line, with kind and code, is the error.
func (c *Container) invoke(ctx context.Context, stdin []byte, args ...string) error {
	_, err := c.output(ctx, c.host.Limits.Runtime, stdin, args...)
	return err
}

// invokeWithin is invoke for what may take longer than other calls.
func (c *Container) invokeWithin(ctx context.Context, limit time.Duration, args ...string) error {
	_, err := c.output(ctx, limit, nil, args...)
	return err
}

// output is invoke for what the runtime says on its standard output.
func (c *Container) output(ctx context.Context, limit time.Duration, stdin []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fd, err := unix.MemfdCreate("runtime log", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a log for the runtime: %w", err)
	}
	log := os.NewFile(uintptr(fd), "runtime log")
	defer log.Close()

	var stdout, stderr bytes.Buffer
	flags := append([]string{}, c.record.RuntimeArgs...)
	flags = append(flags, "--log", "/proc/self/fd/3", "--log-format", "json")
	cmd := exec.CommandContext(ctx, c.record.Runtime, append(flags, args...)...)
	cmd.Dir = c.dir
	cmd.Env = environment()
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	cmd.Stdout = &limitedWriter{to: &stdout, left: maxSaid}
	cmd.Stderr = &limitedWriter{to: &stderr, left: maxSaid}
	cmd.ExtraFiles = []*os.File{log}
	cmd.WaitDelay = time.Second // for what the runtime started and left with our stderr
	err = cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return stdout.Bytes(), nil
	}
	what := fmt.Sprintf("%s %s of container %s", c.record.Runtime, args[0], c.record.ID)
	if ctx.Err() != nil {
		return nil, errdefs.DeadlineExceeded.Errorf("%s: %w after %s", what, ctx.Err(), limit)
	}
	if _, err := log.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("%s: reading its log: %w", what, err)
	}
	said, _ := io.ReadAll(io.LimitReader(log, maxSaid))
	return nil, runtimeError(what, err, said, stderr.Bytes())
}

// runtimeError makes an error of what the runtime wrote before it failed.
func runtimeError(what string, failed error, log, stderr []byte) error {
	if wire, found := lastError(log); found {
		return fmt.Errorf("%s: %w", what, wire.Err())
	}
	if text := strings.TrimSpace(string(stderr)); text != "" {
		return fmt.Errorf("%s: %w: %s", what, failed, text)
	}
	return fmt.Errorf("%s: %w", what, failed)
}

// lastError finds the last line of level error in a runtime's JSON log. ocirun's
// lines carry kind, code and subject; those of others only the text.
func lastError(log []byte) (wire errdefs.Wire, found bool) {
	for line := range bytes.Lines(log) {
		var entry struct {
			Level string `json:"level"`
			errdefs.Wire
		}
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "error" || entry.Level == "fatal") && entry.Text != "" {
			wire, found = entry.Wire, true
		}
	}
	return wire, found
}

// limitedWriter keeps the first bytes and takes the rest without a word.
type limitedWriter struct {
	to   *bytes.Buffer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	kept := p[:min(len(p), w.left)]
	w.left -= len(kept)
	w.to.Write(kept)
	return len(p), nil
}
