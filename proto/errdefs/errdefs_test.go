package errdefs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"

	cerrdefs "github.com/containerd/errdefs"
)

func TestKindSurvivesWrappingAndTheWire(t *testing.T) {
	original := NotFound.Coded(NoSuchContainer, "web", "no such container: %s", "web")
	wrapped := fmt.Errorf("inspecting: %w", original)
	if !cerrdefs.IsNotFound(wrapped) {
		t.Error("containerd/errdefs does not see a NotFound")
	}
	encoded, err := json.Marshal(ToWire(wrapped))
	if err != nil {
		t.Fatal(err)
	}
	var wire Wire
	if err := json.Unmarshal(encoded, &wire); err != nil {
		t.Fatal(err)
	}
	got := wire.Err()
	if KindOf(got) != NotFound || CodeOf(got) != NoSuchContainer || got.Subject != "web" {
		t.Errorf("after the wire: %+v", got)
	}
	if got.Error() != "inspecting: no such container: web" {
		t.Errorf("text: %q", got)
	}
}

func TestKindOfEverySentinel(t *testing.T) {
	for kind, sentinel := range sentinels {
		if got := KindOf(fmt.Errorf("x: %w", sentinel)); got != kind {
			t.Errorf("KindOf(%v) = %q, want %q", sentinel, got, kind)
		}
		if !errors.Is(kind.Errorf("y"), sentinel) {
			t.Errorf("an error of kind %q is not %v", kind, sentinel)
		}
	}
	if KindOf(nil) != Unknown || KindOf(errors.New("z")) != Unknown {
		t.Error("unclassified errors have a kind")
	}
}

func TestCodeOfAnInnerError(t *testing.T) {
	inner := Conflict.Coded(NameTaken, "/web", "taken")
	outer := Internal.Errorf("creating: %w", inner)
	if KindOf(outer) != Internal {
		t.Error("the outermost kind must win")
	}
	if code, subject := CodeAndSubject(outer); code != NameTaken || subject != "/web" {
		t.Errorf("got %q %q", code, subject)
	}
}

func TestUndoRunsNewestFirstAndOnlyOnError(t *testing.T) {
	run := func(fail error) (order []string, err error) {
		var undo Undo
		defer undo.OnError(&err)
		for _, name := range []string{"a", "b", "c"} {
			undo.Add(name, func(ctx context.Context) error {
				order = append(order, name)
				if _, bounded := ctx.Deadline(); !bounded {
					t.Error("a step without a deadline")
				}
				if name == "b" {
					return errors.New("stuck")
				}
				return nil
			})
		}
		return nil, fail
	}
	if order, err := run(nil); order != nil || err != nil {
		t.Errorf("ran %v on success (%v)", order, err)
	}
	cause := errors.New("cause")
	order, err := run(cause)
	if want := []string{"c", "b", "a"}; !reflect.DeepEqual(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if !errors.Is(err, cause) || err.Error() != "cause\nundo: b: stuck" {
		t.Errorf("err = %q", err)
	}
}
