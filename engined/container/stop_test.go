package container

import (
	"os"
	"testing"
	"testing/synctest"
)

func TestAStopBesideAnotherTearsDownNothingWithoutTheTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t).run()
		defer w.end()
		id := w.started("web")
		c, err := w.index.find(id)
		if err != nil {
			t.Fatal(err)
		}
		release, err := c.turn.take(t.Context(), stopping, id)
		if err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() {
			none := 0
			stopped <- w.Stop(t.Context(), id, StopOptions{Timeout: &none})
		}()
		synctest.Wait()
		if phase := w.phase(id); phase != exited {
			t.Errorf("phase %s", phase)
		}
		if _, err := os.Stat(w.runDir(id)); err != nil {
			t.Error("the run was torn down beside the holder of the turn:", err)
		}
		release()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		w.clean()
	})
}
