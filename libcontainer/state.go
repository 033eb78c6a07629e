package libcontainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/libcontainer/resctrl"
	"github.com/engined/engined/proto/errdefs"
)

// Files of a container's directory, ROOT/ID.
const (
	StateFile   = "state.json"  // State
	MakingFile  = "making.json" // the same, until the container is created: there is nothing to enter or to start yet
	ConfigFile  = "config.json" // the bundle's, verbatim: the bundle may change later
	FifoFile    = "exec.fifo"   // created containers only; opening it lets the process go
	HooksFile   = "hooks.fifo"  // with startContainer hooks only: what start hears of them
	SeccompFile = "seccomp.bpf" // the compiled filter, for exec
	NotifyDir   = "notify"      // if NOTIFY_SOCKET was set at create only: what the container has at /run/notify
)

// State is ROOT/ID/state.json: what create knew and the kernel cannot tell.
// Create writes it once the init's pid is known; nothing else does.
type State struct {
	ID           string            `json:"id"`
	Bundle       string            `json:"bundle"`    // absolute
	Rootfs       string            `json:"rootfs"`    // absolute
	Pid          int               `json:"pid"`       // init, in the runtime's pid namespace
	PidStart     uint64            `json:"pid_start"` // clock ticks since boot, field 22 of /proc/PID/stat
	Created      time.Time         `json:"created"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Cgroup       cgroup.Location   `json:"cgroup"`
	Resctrl      resctrl.Group     `json:"resctrl,omitzero"`
	NoNewKeyring bool              `json:"no_new_keyring,omitempty"` // those of exec have none of the container's either
	Stdio        []string          `json:"stdio,omitempty"`          // what descriptors 0 to 2 were, as "pipe:[123]": restore connects pipes anew
}

// Container is a directory below the root, and what its state.json says.
type Container struct {
	Root, ID string
	State    State
}

// DefaultRoot is where containers live without --root.
func DefaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && personal() {
		return filepath.Join(dir, "ocirun")
	}
	return "/run/ocirun"
}

// personal reports whether XDG_RUNTIME_DIR is ours to use: not by root, whose it may be
// by su or sudo, but by the root of a user namespace that another user made, as
// rootless engines do. Runc's rule.
func personal() bool {
	if os.Geteuid() != 0 {
		return true
	}
	return cgroup.InUserNamespace() && os.Getenv("USER") != "root"
}

// SeccompCache is the directory below root that keeps compiled filters.
func SeccompCache(root string) string { return filepath.Join(root, seccompCache) }

const seccompCache = ".seccomp"

// Dir returns the container's directory.
func (c *Container) Dir() string { return filepath.Join(c.Root, c.ID) }

// Open reads the state of the container id.
func Open(root, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, err
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	c := &Container{Root: root, ID: id}
	if err := c.load(StateFile); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Container) load(file string) error {
	path := filepath.Join(c.Dir(), file)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.NotFound.Coded(errdefs.NoSuchContainer, c.ID, "container does not exist")
	}
	if err != nil {
		return err
	}
	if err := plainjson.Unmarshal(data, &c.State); err != nil {
		return errdefs.DataLoss.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// Reserve makes the directory of a new container, which fails if it is there.
func Reserve(root, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, err
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	c := &Container{Root: root, ID: id}
	err = os.Mkdir(c.Dir(), 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeRoot(root); err != nil {
			return nil, err
		}
		err = os.Mkdir(c.Dir(), 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, errdefs.AlreadyExists.Coded(errdefs.NameTaken, id, "container with given ID already exists")
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// makeRoot makes the directory of all containers. What is in XDG_RUNTIME_DIR
// may be swept away unless it has the sticky bit (XDG Base Directory
// Specification).
func makeRoot(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 || root != DefaultRoot() {
		return nil
	}
	return os.Chmod(root, 0o700|os.ModeSticky)
}

// Save writes the state of a container that is being made, whole: a reader sees all of
// it or none. Only who removes it looks there.
func (c *Container) Save() error {
	data, err := json.Marshal(&c.State)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(c.Dir(), MakingFile), data); err != nil {
		return fmt.Errorf("saving the container's state: %w", err)
	}
	return nil
}

// Publish makes the container one that there is.
func (c *Container) Publish() error {
	if err := os.Rename(filepath.Join(c.Dir(), MakingFile), filepath.Join(c.Dir(), StateFile)); err != nil {
		return fmt.Errorf("saving the container's state: %w", err)
	}
	failpoint.At("state-published")
	return nil
}

// replaceFile puts data at path in one step. The root is a tmpfs that does not
// survive a crash of the machine, so nothing is synced.
func replaceFile(path string, data []byte) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	failpoint.At("state-written")
	return os.Rename(temporary, path)
}

// validateID accepts runc's alphabet. The cache's name is taken.
func validateID(id string) error {
	valid := id != "" && id != "." && id != ".." && id != seccompCache
	for i := 0; i < len(id) && valid; i++ {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '_', c == '+', c == '-', c == '.':
		default:
			valid = false
		}
	}
	if !valid {
		return errdefs.InvalidArgument.Errorf("invalid container ID format %q: expected one or more of a-z A-Z 0-9 _ + - .", id)
	}
	return nil
}

// cgroup returns the container's cgroup.
func (c *Container) cgroup() *cgroup.Cgroup { return cgroup.At(c.State.Cgroup) }
