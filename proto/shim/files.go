package shim

import "time"

// File names below a container's directory.
const (
	ContainerFile = "container.json"
	SocketFile    = "shim.sock"
	SelfFile      = "shim.json"
	LogFile       = "shim.log"
	RuntimeLog    = "runtime.log"

	RequestFile = "request.json"
	ProcessFile = "process.json"
	StartedFile = "started.json"
	ExitFile    = "exit.json"
	LostFile    = "lost.json"
	CRIUDir     = "criu.work"
)

// Init is the name and directory of a container's first process.
const Init = "init"

// SocketFD is the descriptor at which the shim inherits its listening socket, and
// a spare one the connection on which it is given that.
const SocketFD = 3

// SpareCommand is the first argument of a shim that was started ahead, the second
// is the state directory, and the third as long as TitleRoom.
const SpareCommand = "--spare"

// TitleRoom is how many bytes of its command line a spare shim has for the three
// arguments of one that has a container, with a zero byte after each.
const TitleRoom = 1024

// Container is container.json.
type Container struct {
	ID          string    `json:"id"`
	Bundle      string    `json:"bundle"`                 // absolute path
	Runtime     string    `json:"runtime"`                // absolute path of the binary
	RuntimeArgs []string  `json:"runtime_args,omitempty"` // before the command, as --root DIR
	Labels      []string  `json:"labels,omitempty"`
	Created     time.Time `json:"created"`
}

// Self is shim.json.
type Self struct {
	Pid     int    `json:"pid"`
	Start   uint64 `json:"start"`   // clock ticks since boot, field 22 of /proc/PID/stat
	Version int    `json:"version"` // packet version it speaks
}

// Request is request.json: one process to start.
type Request struct {
	Terminal bool   `json:"terminal,omitempty"`
	Width    uint16 `json:"width,omitempty"`  // columns, 0: unset
	Height   uint16 `json:"height,omitempty"` // rows

	// Fifos of a gRPC client; empty: none.
	Stdin  string `json:"stdin,omitempty"`
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`

	OpenStdin   bool `json:"open_stdin,omitempty"`   // a pipe for attached clients instead of /dev/null
	StdinOnce   bool `json:"stdin_once,omitempty"`   // close it when the first attached client with stdin leaves
	AwaitAttach int  `json:"await_attach,omitempty"` // Attach packets to wait for before output flows, AttachWait at most

	Log *Log `json:"log,omitempty"` // nil: no log

	// Init only.
	CreateOnly    bool   `json:"create_only,omitempty"`
	NoPivot       bool   `json:"no_pivot,omitempty"`
	Checkpoint    string `json:"checkpoint,omitempty"`     // name to restore from
	CheckpointDir string `json:"checkpoint_dir,omitempty"` // where it is, absolute
	// RestoreFlags are what `RUNTIME restore` is to be told as `RUNTIME checkpoint` was.
	RestoreFlags []string `json:"restore_flags,omitempty"`
}

// AttachWait is how long output waits for Request.AwaitAttach clients, whose
// sender may have died.
const AttachWait = 10 * time.Second

// Log says how output is logged.
type Log struct {
	Driver   string            `json:"driver"` // json-file, local
	Path     string            `json:"path"`
	MaxSize  int64             `json:"max_size,omitempty"` // bytes, 0: no rotation
	MaxFile  int               `json:"max_file,omitempty"` // files kept, the current one included
	Compress bool              `json:"compress,omitempty"`
	Attrs    map[string]string `json:"attrs,omitempty"`
}

// Started is started.json and the body of the answers to Start and Resume.
type Started struct {
	Pid   int       `json:"pid"`
	Start uint64    `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
	Time  time.Time `json:"time"`
}

// Exit is exit.json and lost.json.
type Exit struct {
	Status    int       `json:"status"`           // 0-255; 128 + Signal if a signal ended it
	Signal    int       `json:"signal,omitempty"` // 0: it exited by itself
	Time      time.Time `json:"time"`
	OOMKilled bool      `json:"oom_killed,omitempty"`
	Reason    string    `json:"reason,omitempty"`   // set where the status alone misleads
	LogLost   int64     `json:"log_lost,omitempty"` // lines that could not be logged
}
