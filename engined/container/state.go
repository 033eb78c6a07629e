package container

import (
	"context"
	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/proto/errdefs"
)

// Phase is where in its life a container is. Values are Docker's.
type Phase = apicontainer.ContainerState

// The phases; gone is that of a container that is no more.
const (
	created    = apicontainer.StateCreated
	running    = apicontainer.StateRunning
	paused     = apicontainer.StatePaused
	restarting = apicontainer.StateRestarting
	exited     = apicontainer.StateExited
	removing   = apicontainer.StateRemoving
	dead       = apicontainer.StateDead
	gone       = Phase("")
)

var phases = []Phase{created, running, paused, restarting, exited, removing, dead}

// event is what leads from one phase to another.
type event string

const (
	started      event = "started"
	startFailed  event = "start failed"
	stopped      event = "stopped"
	crashed      event = "crashed" // ended, and will be started again
	froze        event = "froze"
	thawed       event = "thawed"
	removeBegan  event = "remove began"
	removeFailed event = "remove failed"
	removed      event = "removed"
)

var allEvents = []event{started, startFailed, stopped, crashed, froze, thawed, removeBegan, removeFailed, removed}

// transitions is the whole of it: what is not here does not happen.
var transitions = map[Phase]map[event]Phase{
	created:    {started: running, startFailed: created, removeBegan: removing},
	running:    {stopped: exited, crashed: restarting, froze: paused},
	paused:     {stopped: exited, crashed: restarting, thawed: running},
	restarting: {started: running, startFailed: exited, stopped: exited, removeBegan: removing},
	exited:     {started: running, startFailed: exited, removeBegan: removing},
	removing:   {removeFailed: dead, removed: gone},
	dead:       {removeBegan: removing},
}

// next returns the phase that an event leads to.
func next(from Phase, happened event) (Phase, error) {
	to, possible := transitions[from][happened]
	if !possible {
		return from, errdefs.FailedPrecondition.Errorf("a container that is %s cannot have %s", from, happened)
	}
	return to, nil
}

// verb is what a client asks for.
type verb string

const (
	starting   verb = "start"
	stopping   verb = "stop"
	restartng  verb = "restart"
	killing    verb = "kill"
	pausing    verb = "pause"
	unpausing  verb = "unpause"
	removal    verb = "remove"
	forced     verb = "remove --force"
	renaming   verb = "rename"
	resizing   verb = "resize"
	attaching  verb = "attach"
	executing  verb = "exec"
	listing    verb = "top"
	tearing    verb = "teardown" // not a client's: giving back after an exit
	autoRemove verb = "autoremove"
)

// refusal is why a verb is not allowed in a phase. Text has one %s, the
// container's id or name as Docker has it there.
type refusal struct {
	kind errdefs.Kind
	code errdefs.Code
	text string
}

var (
	notRunning    = &refusal{errdefs.Conflict, errdefs.NotRunning, "container %s is not running"}
	alreadyUp     = &refusal{errdefs.NotModified, errdefs.AlreadyStarted, "container %s is already started"}
	notUp         = &refusal{errdefs.NotModified, errdefs.NotRunning, "container %s is not running"}
	startPaused   = &refusal{errdefs.Conflict, errdefs.Paused, "cannot start a paused container, try unpause instead: %s"}
	goingAway     = &refusal{errdefs.Conflict, errdefs.Busy, "container %s is marked for removal and cannot be started"}
	isRestarting  = &refusal{errdefs.Conflict, errdefs.Busy, "Container %s is restarting, wait until the container is running"}
	alreadyFrozen = &refusal{errdefs.Conflict, errdefs.Paused, "Container %s is already paused"}
	notFrozen     = &refusal{errdefs.Conflict, "", "Container %s is not paused"}
	removeRunning = &refusal{errdefs.Conflict, errdefs.Running, "cannot remove container %q: container is running: stop the container before removing or force remove"}
	removePaused  = &refusal{errdefs.Conflict, errdefs.Paused, "cannot remove container %q: container is paused and must be unpaused first"}
	removeAgain   = &refusal{errdefs.Conflict, errdefs.Busy, "removal of container %s is already in progress"}
	attachPaused  = &refusal{errdefs.Conflict, errdefs.Paused, "container %s is paused, unpause the container before attach"}
	execPaused    = &refusal{errdefs.Conflict, errdefs.Paused, "container %s is paused, unpause the container before exec"}
)

// allowed has a row for every verb and a cell for every phase; nil is yes.
var allowed = map[verb]map[Phase]*refusal{
	starting:   {created: nil, running: alreadyUp, paused: startPaused, restarting: alreadyUp, exited: nil, removing: goingAway, dead: goingAway},
	stopping:   {created: notUp, running: nil, paused: nil, restarting: nil, exited: notUp, removing: notUp, dead: notUp},
	restartng:  {created: nil, running: nil, paused: nil, restarting: nil, exited: nil, removing: goingAway, dead: goingAway},
	killing:    {created: notRunning, running: nil, paused: nil, restarting: nil, exited: notRunning, removing: notRunning, dead: notRunning},
	pausing:    {created: notRunning, running: nil, paused: alreadyFrozen, restarting: isRestarting, exited: notRunning, removing: notRunning, dead: notRunning},
	unpausing:  {created: notFrozen, running: notFrozen, paused: nil, restarting: notFrozen, exited: notFrozen, removing: notFrozen, dead: notFrozen},
	removal:    {created: nil, running: removeRunning, paused: removePaused, restarting: removeRunning, exited: nil, removing: removeAgain, dead: nil},
	forced:     {created: nil, running: nil, paused: nil, restarting: nil, exited: nil, removing: removeAgain, dead: nil},
	autoRemove: {created: nil, running: removeRunning, paused: removePaused, restarting: removeRunning, exited: nil, removing: removeAgain, dead: nil},
	renaming:   {created: nil, running: nil, paused: nil, restarting: nil, exited: nil, removing: goingAway, dead: goingAway},
	resizing:   {created: notRunning, running: nil, paused: nil, restarting: isRestarting, exited: notRunning, removing: notRunning, dead: notRunning},
	attaching:  {created: nil, running: nil, paused: attachPaused, restarting: isRestarting, exited: nil, removing: goingAway, dead: goingAway},
	executing:  {created: notRunning, running: nil, paused: execPaused, restarting: isRestarting, exited: notRunning, removing: notRunning, dead: notRunning},
	listing:    {created: notRunning, running: nil, paused: nil, restarting: isRestarting, exited: notRunning, removing: notRunning, dead: notRunning},
	tearing:    {created: nil, running: nil, paused: nil, restarting: nil, exited: nil, removing: nil, dead: nil},
}

// allow says whether a verb may be done to a container as its record is now.
func allow(v verb, r *Record) error {
	why := allowed[v][r.Phase()]
	if why == nil {
		return nil
	}
	subject := r.ID
	if why == removeRunning || why == removePaused {
		subject = "/" + r.Name
	}
	return why.kind.Coded(why.code, r.ID, why.text, subject)
}

// enter takes the container's turn for a verb that its state allows then. The
// caller releases it.
func (c *container) enter(ctx context.Context, v verb) (release func(), err error) {
	if release, err = c.turn.take(ctx, v, c.id); err != nil {
		return nil, err
	}
	if err := allow(v, c.record.Load()); err != nil {
		release()
		return nil, err
	}
	return release, nil
}
