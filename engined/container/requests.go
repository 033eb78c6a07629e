package container

import (
	"io"
	"net"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CreateRequest is what a client asks for at create.
type CreateRequest struct {
	Name             string // "": one is made up
	Config           *apicontainer.Config
	HostConfig       *apicontainer.HostConfig
	NetworkingConfig *apinetwork.NetworkingConfig
	Platform         *ocispec.Platform
}

// StopOptions say how to stop.
type StopOptions struct {
	Signal  string // "": the container's own StopSignal
	Timeout *int   // seconds before KILL, -1: never; nil: the container's own
}

// RemoveOptions say how to remove.
type RemoveOptions struct {
	Force   bool // kill it if it runs
	Volumes bool // remove its anonymous volumes too
}

// ListOptions say which containers to list.
type ListOptions struct {
	All     bool // also those that do not run
	Limit   int  // the newest ones only, 0: no limit; implies All
	Size    bool
	Filters map[string][]string
}

// LogsOptions say which part of a log to read.
type LogsOptions struct {
	Stdout, Stderr bool
	Follow         bool // until the container stops
	Timestamps     bool
	Details        bool
	Since, Until   time.Time // zero: no limit
	Tail           int       // lines from the end, -1: all
}

// LogWriter takes a log. Begin is called once, when nothing can be refused any
// more; a terminal's log is raw, any other's has the form of logs.Request.Framed.
type LogWriter interface {
	Begin(tty bool) (io.Writer, error)
}

// AttachOptions say which streams a client wants.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool   // what was logged so far, first
	Stream                bool   // what comes
	DetachKeys            string // as "ctrl-p,ctrl-q"; "": the default
}

// ExecStartOptions say how to start a prepared command.
type ExecStartOptions struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint // height, width
}

// Upgrade takes a client's connection over: it writes the answer's head and
// returns the connection, which is then this package's, and what was read
// ahead. It is called at most once, when nothing can be answered by a status
// any more.
type Upgrade func(tty bool) (net.Conn, []byte, error)
