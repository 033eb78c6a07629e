package errdefs

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// undoTimeout bounds all steps of one stack together. The caller's context is
// not used: it is often the reason for the failure.
const undoTimeout = 30 * time.Second

// Undo is a stack of steps that give back what a function acquired. Add a step
// on the line after each acquire and run the stack only on failure:
//
//	func create() (err error) {
//		var undo errdefs.Undo
//		defer undo.OnError(&err)
//		...
//		undo.Add("unmount rootfs", func(ctx context.Context) error { ... })
//
// The zero Undo is empty and ready. It belongs to one goroutine.
type Undo struct {
	steps []undoStep
}

type undoStep struct {
	what string
	run  func(context.Context) error
}

// Add pushes a step. What says what it does, for the error of a step that fails.
func (u *Undo) Add(what string, run func(context.Context) error) {
	u.steps = append(u.steps, undoStep{what, run})
}

// OnError runs the steps, newest first, if *err is not nil, and joins their
// errors to it. It is meant for a defer and leaves the stack empty.
func (u *Undo) OnError(err *error) {
	if *err == nil {
		u.steps = nil
		return
	}
	if failed := u.Run(); failed != nil {
		*err = errors.Join(*err, failed)
	}
}

// Run runs the steps now, newest first, all of them even if some fail.
func (u *Undo) Run() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
	defer cancel()
	var failed []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		if err := u.steps[i].run(ctx); err != nil {
			failed = append(failed, fmt.Errorf("undo: %s: %w", u.steps[i].what, err))
		}
	}
	u.steps = nil
	return errors.Join(failed...)
}

// Forget drops the steps: what was acquired stays, or now belongs to another.
func (u *Undo) Forget() { u.steps = nil }
