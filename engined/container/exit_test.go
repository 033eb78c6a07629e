package container

import (
	"database/sql"
	"fmt"
	"testing"
	"testing/synctest"

	apicontainer "github.com/moby/moby/api/types/container"
)

// refuseWrites makes the database refuse changes of containers, or take them
// again.
func refuseWrites(t *testing.T, w *world, refuse bool) {
	t.Helper()
	statement := `DROP TRIGGER refuse`
	if refuse {
		statement = `CREATE TRIGGER refuse BEFORE INSERT ON containers BEGIN SELECT RAISE(ABORT, 'made to fail'); END`
	}
	err := w.DB.Update(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAnExitThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	for name, restart := range map[string]bool{"same": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t).run()
				id := w.started("web")
				ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
				refuseWrites(t, w, true)
				w.tasks.exit(id, 6)
				synctest.Wait()
				if phase := w.phase(id); phase != running {
					t.Errorf("phase %s, not as in the database", phase)
				}
				if restart {
					w.reopen() // it becomes ready all the same
					ended = w.waitFor(id, apicontainer.WaitConditionNextExit)
				}
				refuseWrites(t, w, false)
				if code := w.receive(ended); code != 6 {
					t.Errorf("exit status %d", code)
				}
				w.clean()
				if got, want := fmt.Sprint(w.told(id)), "[create start die]"; got != want {
					t.Errorf("events %s, want %s", got, want)
				}
				w.end()
			})
		})
	}
}
