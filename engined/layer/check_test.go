package layer

import (
	"database/sql"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unanswered is a driver below which the disk fails.
type unanswered struct{ driver }

func (unanswered) check(string) error { return unix.EIO }

// damageOf is what the layer's row says.
func damageOf(t *testing.T, s *Store, l Layer) string {
	t.Helper()
	got, err := s.Get(t.Context(), l.Chain)
	if err != nil {
		t.Fatal(err)
	}
	return got.Damaged
}

func setDamage(t *testing.T, s *Store, l Layer, damage string) {
	t.Helper()
	if err := s.db.Update(t.Context(), func(tx *sql.Tx) error { return s.mark(t.Context(), tx, l.Chain, damage) }); err != nil {
		t.Fatal(err)
	}
}

// A directory that a start could not look at is looked at again at the next.
func TestADiskThatAnswersAgainHasNoDamage(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	l, read := s.mustRegister(t, "", file("a", "1")), s.mustRegister(t, "", file("b", "1"))
	const found = "its files have changed: their digest is another"
	setDamage(t, s, read, found)
	works := s.driver
	for _, step := range []struct {
		driver driver
		want   string
	}{{unanswered{works}, directoryUnreadable + "input/output error"}, {unanswered{works}, directoryUnreadable + "input/output error"}, {works, ""}} {
		s.driver = step.driver
		if _, err := s.checkRows(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := damageOf(t, s, l); got != step.want {
			t.Errorf("damaged %q, want %q", got, step.want)
		}
		if got := damageOf(t, s, read); got != found {
			t.Errorf("what was found by reading is %q now", got)
		}
	}
}

// A mark on a layer that reads well is found, and removed by a repair.
func TestACheckRemovesAMarkFromALayerThatIsWhole(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	l, twice := s.mustRegister(t, "", file("a", "1")), s.mustRegister(t, "", file("b", "1"), file("b", "2"))
	setDamage(t, s, l, "lstat: input/output error")
	setDamage(t, s, twice, "it cannot be read back") // nothing can show that it is whole
	for _, c := range []struct {
		repair bool
		want   int // findings
		left   string
	}{{false, 2, "lstat: input/output error"}, {true, 2, ""}, {false, 1, ""}} {
		found, err := s.Check(t.Context(), c.repair)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != c.want {
			t.Errorf("repair %v: found %v, want %d", c.repair, found, c.want)
		}
		if got := damageOf(t, s, l); got != c.left {
			t.Errorf("repair %v: damaged %q, want %q", c.repair, got, c.left)
		}
		if got := damageOf(t, s, twice); !strings.Contains(got, "read back") {
			t.Errorf("repair %v: the other is damaged %q", c.repair, got)
		}
	}
}
