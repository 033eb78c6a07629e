package runtime

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// The shapes of the shim's files, by which containers are described here too.
type (
	Request = shim.Request
	Started = shim.Started
	Exit    = shim.Exit
	Log     = shim.Log
)

// Init is the name of a container's first process.
const Init = shim.Init

// Host is where containers are and what runs them.
type Host struct {
	StateDir string       // one directory per container
	Root     string       // the runtimes' --root, one directory per runtime
	Shim     string       // absolute path of the shim's binary
	Runtime  string       // name or path of the runtime that is used by default
	Limits   Limits       // how long to wait for what
	Reserve  *Reserve     // of shims started ahead; nil: none
	Crowded  atomic.Bool  // many shims start at the same time
	Logger   *slog.Logger // for what has no caller

	cgroups layout
}

// Limits are the longest waits for a container's shim and runtime.
type Limits struct {
	Shim    time.Duration // an answer that takes no work
	Start   time.Duration // a process that starts, fifos that somebody opens included
	Runtime time.Duration // one call of the OCI runtime, also by way of the shim
}

// DefaultLimits are generous: a machine under load is no error.
var DefaultLimits = Limits{Shim: 5 * time.Second, Start: 30 * time.Second, Runtime: 30 * time.Second}

// ResolveRuntime returns the absolute path of the runtime that name, by default
// the host's, means: a path, or a name beside this binary or in PATH.
func (h *Host) ResolveRuntime(name string) (string, error) {
	if name == "" {
		name = h.Runtime
	}
	path, err := FindBinary(name)
	if err != nil {
		return "", errdefs.InvalidArgument.Coded(errdefs.RuntimeMissing, name, "runtime %q: %w", name, err)
	}
	return path, nil
}

// FindBinary returns the absolute path of an executable: name itself if it is
// a path, else name beside this process's own binary, else in PATH.
func FindBinary(name string) (string, error) {
	if name == "" {
		return "", errdefs.InvalidArgument.Errorf("no name given")
	}
	if strings.Contains(name, "/") {
		path, err := filepath.Abs(name)
		if err != nil {
			return "", err
		}
		return exec.LookPath(path)
	}
	if own, err := os.Executable(); err == nil {
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(own), name)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// dir returns the directory of container id.
func (h *Host) dir(id string) string { return filepath.Join(h.StateDir, id) }

// rootArgs are the global flags that keep a runtime's state below h.Root. Each
// runtime has a directory of its own: they do not read each other's files.
func (h *Host) rootArgs(runtime string) []string {
	return []string{"--root", h.runtimeRoot(runtime)}
}

// runtimeRoot is where a runtime keeps its own state.
func (h *Host) runtimeRoot(runtime string) string {
	return filepath.Join(h.Root, filepath.Base(runtime))
}
