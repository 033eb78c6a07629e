package container

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

// recordIn returns a record whose facts add up to a phase. No record is
// restarting yet.
func recordIn(phase Phase) *Record {
	now := time.Unix(1000, 0).UTC()
	r := &Record{ID: "0123", Name: "web", HostConfig: &apicontainer.HostConfig{}, Config: &apicontainer.Config{}}
	switch phase {
	case created:
	case running:
		r.Run = &Run{Started: now}
	case paused:
		r.Run = &Run{Started: now, Frozen: &now}
	case exited:
		r.Run = &Run{Started: now, Exit: &task.Exit{Status: 3, Time: now}}
	case removing:
		r.RemoveBegan = &now
	case dead:
		r.RemoveBegan, r.RemoveFailed = &now, &Failure{Text: "stuck"}
	case restarting:
		return nil
	}
	return r
}

// happen applies an event to a record; false: no code does.
func happen(r *Record, e event) (error, bool) {
	now := time.Unix(2000, 0).UTC()
	switch e {
	case started:
		return r.applyStarted(Run{Started: now}), true
	case startFailed:
		return r.applyStartFailed(Failure{Code: 127}), true
	case stopped:
		return r.applyStopped(task.Exit{Time: now}), true
	case froze:
		return r.applyFroze(now), true
	case thawed:
		return r.applyThawed(), true
	case removeBegan:
		return r.applyRemoveBegan(now, false), true
	case removeFailed:
		return r.applyRemoveFailed(Failure{}), true
	case crashed, removed:
	}
	return nil, false
}

func TestEveryEventInEveryPhase(t *testing.T) {
	for _, phase := range phases {
		for _, e := range allEvents {
			want, possible := transitions[phase][e]
			if got, err := next(phase, e); (err == nil) != possible || possible && got != want {
				t.Errorf("%s × %s: %v, %v", phase, e, got, err)
			}
			r := recordIn(phase)
			if r == nil {
				continue
			}
			if r.Phase() != phase {
				t.Fatalf("the record for %s is %s", phase, r.Phase())
			}
			before := *r
			err, applies := happen(r, e)
			switch {
			case !applies:
			case !possible:
				if errdefs.KindOf(err) != errdefs.FailedPrecondition || r.Phase() != before.Phase() {
					t.Errorf("%s × %s: %v, now %s", phase, e, err, r.Phase())
				}
			case err != nil || r.Phase() != want:
				t.Errorf("%s × %s: %v, now %s, want %s", phase, e, err, r.Phase(), want)
			}
		}
	}
}

func TestApplyLeavesTheRecordThatReadersHave(t *testing.T) {
	old := recordIn(running)
	changed := *old
	if err := changed.applyStopped(task.Exit{Status: 1}); err != nil {
		t.Fatal(err)
	}
	if old.Phase() != running {
		t.Error("the old record changed under its readers")
	}
}

var verbs = []verb{starting, stopping, restartng, killing, pausing, unpausing, removal, forced, renaming, resizing, attaching, executing, listing, tearing, autoRemove}

func TestEveryVerbHasAnAnswerInEveryPhase(t *testing.T) {
	for _, v := range verbs {
		for _, phase := range phases {
			if _, has := allowed[v][phase]; !has {
				t.Errorf("%s × %s: no cell", v, phase)
			}
			r := recordIn(phase)
			if r == nil {
				continue
			}
			why, err := allowed[v][phase], allow(v, r)
			if (why == nil) != (err == nil) {
				t.Errorf("%s × %s: %v", v, phase, err)
			}
			if why != nil && errdefs.KindOf(err) != why.kind {
				t.Errorf("%s × %s: kind %s, want %s", v, phase, errdefs.KindOf(err), why.kind)
			}
		}
	}
}

// takers are the verbs that take the turn, or look whether they may pass.
var takers = []verb{starting, stopping, restartng, killing, pausing, unpausing, removal, forced, autoRemove, renaming, tearing}

func TestEveryVerbMeetsEveryOtherAsTheTableSays(t *testing.T) {
	for holder, row := range meetings {
		for _, comer := range takers {
			how, has := row[comer]
			if !has {
				t.Errorf("%s meets %s: no cell", comer, holder)
				continue
			}
			synctest.Test(t, func(t *testing.T) { meet(t, holder, comer, how) })
		}
	}
}

// meet lets one verb come while another has the turn, and sees what it does.
func meet(t *testing.T, holder, comer verb, how meeting) {
	var turn turn
	release, err := turn.take(t.Context(), holder, "c")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	came := make(chan error, 1)
	go func() {
		give, err := turn.take(ctx, comer, "c")
		if err == nil {
			give()
		}
		came <- err
	}()
	synctest.Wait()
	select {
	case err := <-came:
		if how == wait {
			t.Errorf("%s did not wait for %s", comer, holder)
		}
		if (how == refuse) != (err != nil) || err != nil && errdefs.CodeOf(err) != errdefs.Busy {
			t.Errorf("%s meets %s: %v", comer, holder, err)
		}
	default:
		if how != wait {
			t.Errorf("%s waits for %s", comer, holder)
		}
	}
	release()
	synctest.Wait()
	if how == wait {
		if err := <-came; err != nil {
			t.Errorf("%s after %s: %v", comer, holder, err)
		}
	}
}

func TestAWaitForTheTurnEndsWithItsClient(t *testing.T) {
	var turn turn
	release, err := turn.take(t.Context(), starting, "c")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turn.take(ctx, stopping, "c"); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	release()
	if release, err = turn.take(t.Context(), stopping, "c"); err != nil {
		t.Error("the turn is lost:", err)
	}
	release()
}

func TestEveryHolderIsATaker(t *testing.T) {
	for holder := range meetings {
		if !slices.Contains(takers, holder) {
			t.Errorf("%s holds the turn and is not among the takers", holder)
		}
	}
}
