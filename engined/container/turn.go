package container

import (
	"context"
	"sync"

	"github.com/engined/engined/proto/errdefs"
)

// meeting is what a verb does that finds another at work on its container.
type meeting int

const (
	refuse meeting = iota + 1 // say so
	wait                      // until the other is done
	beside                    // go on without the turn
)

// meetings: first the verb at work, then the one that comes. Those that never
// hold the turn (kill, exec, attach...) have no row.
//
// Docker's users rely on: stop, kill and rm -f while a start is under way; a
// start right after an exit; a kill, and a stop with less patience, during a
// stop.
var meetings = map[verb]map[verb]meeting{
	starting:   {starting: wait, stopping: wait, restartng: wait, killing: wait, pausing: wait, unpausing: wait, removal: wait, forced: wait, autoRemove: wait, renaming: wait, tearing: wait},
	stopping:   {starting: refuse, stopping: beside, restartng: refuse, killing: beside, pausing: refuse, unpausing: beside, removal: refuse, forced: wait, autoRemove: wait, renaming: beside, tearing: wait},
	restartng:  {starting: refuse, stopping: refuse, restartng: refuse, killing: beside, pausing: refuse, unpausing: beside, removal: refuse, forced: wait, autoRemove: wait, renaming: beside, tearing: wait},
	pausing:    {starting: wait, stopping: wait, restartng: wait, killing: wait, pausing: wait, unpausing: wait, removal: wait, forced: wait, autoRemove: wait, renaming: wait, tearing: wait},
	unpausing:  {starting: wait, stopping: wait, restartng: wait, killing: wait, pausing: wait, unpausing: wait, removal: wait, forced: wait, autoRemove: wait, renaming: wait, tearing: wait},
	removal:    {starting: refuse, stopping: refuse, restartng: refuse, killing: beside, pausing: refuse, unpausing: refuse, removal: refuse, forced: refuse, autoRemove: wait, renaming: refuse, tearing: wait},
	forced:     {starting: refuse, stopping: beside, restartng: refuse, killing: beside, pausing: refuse, unpausing: refuse, removal: refuse, forced: refuse, autoRemove: wait, renaming: refuse, tearing: wait},
	autoRemove: {starting: refuse, stopping: wait, restartng: refuse, killing: beside, pausing: refuse, unpausing: refuse, removal: refuse, forced: refuse, autoRemove: wait, renaming: refuse, tearing: wait},
	renaming:   {starting: wait, stopping: wait, restartng: wait, killing: beside, pausing: wait, unpausing: wait, removal: wait, forced: wait, autoRemove: wait, renaming: wait, tearing: wait},
	tearing:    {starting: wait, stopping: wait, restartng: wait, killing: beside, pausing: wait, unpausing: wait, removal: wait, forced: wait, autoRemove: wait, renaming: wait, tearing: wait},
}

// turn is a container's token: one verb has it at a time. Nothing is locked
// while it works.
type turn struct {
	mu     sync.Mutex // guards what follows
	holder verb
	passed chan struct{} // closed when the holder is done
}

// take waits for the turn as the table says and returns what gives it back.
// A verb that goes on beside the holder gets a no-op.
func (t *turn) take(ctx context.Context, v verb, id string) (release func(), err error) {
	release, _, err = t.join(ctx, v, id)
	return release, err
}

// join is take for a verb that does less if it goes on beside the holder.
func (t *turn) join(ctx context.Context, v verb, id string) (release func(), holds bool, err error) {
	for {
		t.mu.Lock()
		if t.holder == "" {
			t.holder, t.passed = v, make(chan struct{})
			t.mu.Unlock()
			return t.release, true, nil
		}
		holder, passed := t.holder, t.passed
		t.mu.Unlock()
		switch meetings[holder][v] {
		case beside:
			return func() {}, false, nil
		case wait:
			select {
			case <-passed:
			case <-ctx.Done():
				return nil, false, ctx.Err()
			}
		default:
			return nil, false, busy(holder, id)
		}
	}
}

// pass waits until no verb stands in the way, for one that takes no turn.
func (t *turn) pass(ctx context.Context, v verb, id string) error {
	for {
		t.mu.Lock()
		holder, passed := t.holder, t.passed
		t.mu.Unlock()
		if holder == "" {
			return nil
		}
		switch meetings[holder][v] {
		case beside:
			return nil
		case wait:
			select {
			case <-passed:
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return busy(holder, id)
		}
	}
}

func (t *turn) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holder = ""
	close(t.passed)
}

func busy(holder verb, id string) error {
	switch holder {
	case removal, forced, autoRemove:
		return errdefs.Conflict.Coded(errdefs.Busy, string(removal), removeAgain.text, id)
	}
	return errdefs.Conflict.Coded(errdefs.Busy, string(holder), "container %s is busy: %s is in progress", id, holder)
}
