package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Runtime is a runtime under test or a reference.
type Runtime struct {
	Name string
	Path string
	Root string                // --root
	Args []string              // before all others
	Env  []string              // added to the environment
	Run  func(*exec.Cmd) error // cmd.Run if nil
}

// References returns the runtimes of the distribution that are installed, each
// with a root below dir.
func References(dir string) []Runtime {
	var found []Runtime
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, Runtime{Name: name, Path: path, Root: filepath.Join(dir, "root-"+name)})
		}
	}
	return found
}

// Output is what a call of a runtime gave.
type Output struct {
	Status         int // -1 if it did not exit by itself
	Stdout, Stderr string
}

// Command prepares a call.
func (r Runtime) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.Path, slices.Concat(r.Args, []string{"--root", r.Root}, args)...)
	cmd.WaitDelay = Patience(time.Second)
	cmd.Env = append(os.Environ(), r.Env...)
	return cmd
}

// Patience is how long to wait for what takes a moment: much longer in an
// emulated machine, whose tool sets VM_RUN.
func Patience(usual time.Duration) time.Duration {
	if os.Getenv("VM_RUN") != "" {
		return 20 * usual
	}
	return usual
}

// Call runs the runtime in a directory, 30 seconds at most.
func (r Runtime) Call(dir string, args ...string) (Output, error) {
	var stdout, stderr bytes.Buffer
	out, err := r.call(dir, &stdout, &stderr, args)
	out.Stdout, out.Stderr = stdout.String(), stderr.String()
	return out, err
}

// CallInto is Call with standard output and error in a file, which a detached
// container may keep.
func (r Runtime) CallInto(file *os.File, dir string, args ...string) (Output, error) {
	return r.call(dir, file, file, args)
}

func (r Runtime) call(dir string, stdout, stderr io.Writer, args []string) (Output, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience(30*time.Second))
	defer cancel()
	cmd := r.Command(ctx, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	run := r.Run
	if run == nil {
		run = (*exec.Cmd).Run
	}
	err := run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Output{}, err
	}
	return Output{Status: cmd.ProcessState.ExitCode()}, ctx.Err()
}
