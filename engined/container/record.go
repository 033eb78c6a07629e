package container

import (
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// Record is all that is known of a container: what was asked for, in Docker's
// own types, and facts with times. It is stored as one JSON document and is
// immutable once it is in memory.
type Record struct {
	ID       string
	Name     string // without the slash
	Created  time.Time
	Image    digest.Digest
	Platform string
	Path     string
	Args     []string

	Config     *apicontainer.Config
	HostConfig *apicontainer.HostConfig
	Networks   map[string]*apinetwork.EndpointSettings // as asked for
	Mounts     []Mount

	Preparing     *time.Time `json:",omitempty"` // create has begun and not ended
	Run           *Run       `json:",omitempty"` // the last one
	StartFailed   *Failure   `json:",omitempty"` // the last start, if it failed
	RemoveBegan   *time.Time `json:",omitempty"`
	RemoveVolumes bool       `json:",omitempty"` // the removal that began is one with the anonymous volumes
	RemoveFailed  *Failure   `json:",omitempty"`
}

// Run is one life of the container's process.
type Run struct {
	Started   time.Time
	Pid       int
	Socket    string                                  // the shim's
	Rootfs    string                                  // where its root filesystem is mounted
	Host      bool                                    `json:",omitempty"` // in the host's network
	Sandbox   string                                  `json:",omitempty"` // its network namespace
	Endpoints map[string]*apinetwork.EndpointSettings `json:",omitempty"`
	Frozen    *time.Time                              `json:",omitempty"`
	Commit    *time.Time                              `json:",omitempty"` // since then a commit freezes it; it ends that, or else the next start
	Exit      *task.Exit                              `json:",omitempty"`
}

// Failure is an attempt that failed.
type Failure struct {
	Time time.Time
	Code int // exit status that Docker shows for it
	Text string
}

// Mount is a mount that the container was created with.
type Mount struct {
	apicontainer.MountPoint
	Anonymous    bool   `json:",omitempty"` // a volume without a name: goes with the container
	NoCopy       bool   `json:",omitempty"` // the volume is not filled from the image
	NonRecursive bool   `json:",omitempty"`
	Recursive    bool   `json:",omitempty"` // read-only below too, or an error
	CreateSource bool   `json:",omitempty"` // of a bind: make the directory if it is missing
	Options      string `json:",omitempty"` // of a tmpfs
}

// Phase is where in its life the container is.
func (r *Record) Phase() Phase {
	switch {
	case r.RemoveFailed != nil:
		return dead
	case r.RemoveBegan != nil, r.Preparing != nil:
		return removing
	case r.Run == nil:
		return created
	case r.Run.Exit != nil:
		return exited
	case r.Run.Frozen != nil:
		return paused
	}
	return running
}

// up says whether there is a process.
func (r *Record) up() bool {
	phase := r.Phase()
	return phase == running || phase == paused
}

// apply notes on a copy of the record that something happened, if it can. note
// writes the fact down.
func (r *Record) apply(happened event, note func(*Record)) error {
	to, err := next(r.Phase(), happened)
	if err != nil {
		return err
	}
	if r.Run != nil {
		run := *r.Run
		r.Run = &run
	}
	note(r)
	if got := r.Phase(); got != to {
		return errdefs.Internal.Errorf("container %s is %s after %s, expected %s", r.ID, got, happened, to)
	}
	return nil
}

func (r *Record) applyStarted(run Run) error {
	return r.apply(started, func(r *Record) { r.Run, r.StartFailed = &run, nil })
}

func (r *Record) applyStartFailed(failure Failure) error {
	return r.apply(startFailed, func(r *Record) { r.StartFailed = &failure })
}

func (r *Record) applyStopped(exit task.Exit) error {
	return r.apply(stopped, func(r *Record) { r.Run.Exit, r.Run.Frozen, r.Run.Commit = &exit, nil, nil })
}

func (r *Record) applyFroze(at time.Time) error {
	return r.apply(froze, func(r *Record) { r.Run.Frozen = &at })
}

func (r *Record) applyThawed() error {
	return r.apply(thawed, func(r *Record) { r.Run.Frozen, r.Run.Commit = nil, nil })
}

// noteCommit notes, on a copy of the run, that a commit freezes it, or no more.
func (r *Record) noteCommit(since *time.Time) {
	run := *r.Run
	run.Commit = since
	r.Run = &run
}

func (r *Record) applyRemoveBegan(at time.Time, volumes bool) error {
	return r.apply(removeBegan, func(r *Record) { r.RemoveBegan, r.RemoveVolumes, r.RemoveFailed = &at, volumes, nil })
}

func (r *Record) applyRemoveFailed(failure Failure) error {
	return r.apply(removeFailed, func(r *Record) { r.RemoveFailed = &failure })
}

// exitCode is what Docker shows: of the last run, or of the start that failed.
func (r *Record) exitCode() int {
	switch {
	case r.StartFailed != nil:
		return r.StartFailed.Code
	case r.Run != nil && r.Run.Exit != nil:
		return r.Run.Exit.Status
	}
	return 0
}
