package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"

	"github.com/engined/engined/engined/task"
	"github.com/engined/engined/proto/errdefs"
)

func expectKind(t *testing.T, err error, kind errdefs.Kind, code errdefs.Code) {
	t.Helper()
	if errdefs.KindOf(err) != kind || errdefs.CodeOf(err) != code {
		t.Errorf("got %v (%s %s), want %s %s", err, errdefs.KindOf(err), errdefs.CodeOf(err), kind, code)
	}
}

func TestALifeFromCreateToRemove(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	expectKind(t, w.Start(t.Context(), "web"), errdefs.NotModified, errdefs.AlreadyStarted)
	expectKind(t, w.Remove(t.Context(), "web", RemoveOptions{}), errdefs.Conflict, errdefs.Running)
	ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
	w.tasks.exit(id, 7)
	if code := w.receive(ended); code != 7 {
		t.Errorf("exit status %d", code)
	}
	w.clean()
	found, err := w.Inspect(t.Context(), "/web", false)
	if err != nil {
		t.Fatal(err)
	}
	if s := found.State; s.Running || s.ExitCode != 7 || s.Status != exited || s.Pid != 0 || s.FinishedAt == never {
		t.Errorf("state %+v", s)
	}
	removed := w.waitFor(id, apicontainer.WaitConditionRemoved)
	if err := w.Remove(t.Context(), id[:12], RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := w.receive(removed); code != 7 {
		t.Errorf("exit status %d at the removal", code)
	}
	if got, want := fmt.Sprint(w.told(id)), "[create start die destroy]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if len(w.images.held)+len(w.layers.made) != 0 {
		t.Errorf("left: %v %v", w.images.held, w.layers.made)
	}
	expectKind(t, w.Start(t.Context(), id), errdefs.NotFound, errdefs.NoSuchContainer)
}

func TestAnExitThatIsFasterThanTheStartsAnswer(t *testing.T) {
	w := newWorld(t).run()
	w.tasks.onCreate = func(id string) error {
		w.tasks.exit(id, 3)
		for range 1000 { // until the monitor has it
			c, err := w.index.find(id)
			if err != nil {
				return err
			}
			c.writing.Lock()
			early := c.early
			c.writing.Unlock()
			if early != nil {
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return errFake
	}
	id := w.create("fast")
	ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if code := w.receive(ended); code != 3 {
		t.Errorf("exit status %d", code)
	}
	w.clean()
	if got, want := fmt.Sprint(w.told(id)), "[create start die]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
}

func TestAStartThatFailsLeavesNothingAndSaysWhy(t *testing.T) {
	notFound := errdefs.InvalidArgument.Coded(errdefs.ExecNotFound, "nope", "not in $PATH")
	for _, c := range []struct {
		name string
		code int
		make func(w *world)
		mend func(w *world)
	}{
		{"mount", 128, func(w *world) { w.layers.fail = errFake }, func(w *world) { w.layers.fail = nil }},
		{"network", 128, func(w *world) { w.networks.fail = errFake }, func(w *world) { w.networks.fail = nil }},
		{"task", 127, func(w *world) { w.tasks.onCreate = func(string) error { return notFound } }, func(w *world) { w.tasks.onCreate = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t).run()
			id := w.create("web")
			c.make(w)
			if err := w.Start(t.Context(), id); err == nil {
				t.Fatal("no error")
			}
			w.clean()
			found, err := w.Inspect(t.Context(), id, false)
			if err != nil {
				t.Fatal(err)
			}
			if s := found.State; s.Status != created || s.ExitCode != c.code || s.Error == "" {
				t.Errorf("state %+v", s)
			}
			c.mend(w)
			if err := w.Start(t.Context(), id); err != nil {
				t.Error("the next start:", err)
			}
		})
	}
}

func TestACreateThatFailsLeavesNothing(t *testing.T) {
	for name, fail := range map[string]func(w *world){
		"image": func(w *world) { w.images.fail = errFake },
		"layer": func(w *world) { w.layers.fail = errFake },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).run()
			fail(w)
			_, err := w.Create(t.Context(), CreateRequest{Name: "web", Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"x"}}})
			if err == nil {
				t.Fatal("no error")
			}
			w.images.fail, w.layers.fail = nil, nil
			w.create("web") // the name is free
			entries, err := os.ReadDir(filepath.Join(w.Root, "containers"))
			if err != nil || len(entries) != 1 {
				t.Errorf("directories %v (%v)", entries, err)
			}
			w.reopen()
			if list, _ := w.List(t.Context(), ListOptions{All: true}); len(list) != 1 {
				t.Errorf("%d containers after reopening", len(list))
			}
		})
	}
}

func TestAnExitIsToldOnce(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
	w.tasks.exit(id, 1)
	w.receive(ended)
	again := task.Exit{Status: 9, Time: time.Now()}
	w.tasks.emit(task.Event{Type: task.EventExit, ID: id, Process: initProcess, Exit: &again})
	second := w.started("other") // the same stream: after this exit the duplicate is handled
	ended = w.waitFor(second, apicontainer.WaitConditionNextExit)
	w.tasks.exit(second, 0)
	w.receive(ended)
	w.clean()
	if got, want := fmt.Sprint(w.told(id)), "[create start die]"; got != want {
		t.Errorf("events %s, want %s", got, want)
	}
	if r, _ := w.Inspect(t.Context(), id, false); r.State.ExitCode != 1 {
		t.Errorf("exit status %d", r.State.ExitCode)
	}
}

// TestAnOOMIsToldWhenItHappens: and once of the first process's end, whichever
// of the two events is first.
func TestAnOOMIsToldWhenItHappens(t *testing.T) {
	w := newWorld(t).run()
	killed := func(id string) {
		w.tasks.emit(task.Event{Type: task.EventExit, ID: id, Process: initProcess, Exit: &task.Exit{Status: 137, OOMKilled: true, Time: time.Now()}})
	}
	oom := func(id string) { w.tasks.emit(task.Event{Type: task.EventOOM, ID: id}) }
	for name, test := range map[string]struct {
		happen func(id string)
		want   string
	}{
		"child":       {func(id string) { oom(id); oom(id); w.tasks.exit(id, 0) }, "[create start oom oom die]"},
		"oom-first":   {func(id string) { oom(id); killed(id) }, "[create start oom die]"},
		"exit-first":  {func(id string) { killed(id); oom(id) }, "[create start oom die]"},
		"never-heard": {killed, "[create start oom die]"},
	} {
		id := w.started(name)
		ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
		test.happen(id)
		w.receive(ended)
		last := w.started(name + "-last") // its exit is handled after all that
		ended = w.waitFor(last, apicontainer.WaitConditionNextExit)
		w.tasks.exit(last, 0)
		w.receive(ended)
		if got := fmt.Sprint(w.told(id)); got != test.want {
			t.Errorf("%s: events %s, want %s", name, got, test.want)
		}
	}
}

func TestStopAsksThenKills(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	none := 0
	if err := w.Stop(t.Context(), id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(w.tasks.signals) != fmt.Sprint([]syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}) {
		t.Errorf("signals %v", w.tasks.signals)
	}
	expectKind(t, w.Stop(t.Context(), id, StopOptions{}), errdefs.NotModified, errdefs.NotRunning)
	w.clean()
	// The last kill is told when the signal is sent, which the exit may overtake.
	got := strings.Join(w.told(id), " ")
	if got != "create start kill kill die stop" && got != "create start kill die kill stop" {
		t.Errorf("events %s", got)
	}
}

func TestAKillEndsAPatientStop(t *testing.T) {
	w := newWorld(t).run()
	asked := make(chan struct{})
	w.tasks.onSignal = func(id string, s syscall.Signal) {
		if s == syscall.SIGINT {
			close(asked)
		}
		if s == syscall.SIGKILL {
			w.tasks.exit(id, 137)
		}
	}
	id := w.started("web")
	forever := -1
	stopped := make(chan error, 1)
	go func() { stopped <- w.Stop(t.Context(), id, StopOptions{Timeout: &forever, Signal: "INT"}) }()
	<-asked
	expectKind(t, w.Pause(t.Context(), id), errdefs.Conflict, errdefs.Busy)
	expectKind(t, w.Start(t.Context(), id), errdefs.Conflict, errdefs.Busy)
	if err := w.Kill(t.Context(), id, ""); err != nil {
		t.Error("kill:", err)
	}
	if err := <-stopped; err != nil {
		t.Error("stop:", err)
	}
	if err := w.Start(t.Context(), id); err != nil { // right after the exit
		t.Error("start:", err)
	}
	w.clean(id)
}

func TestRemoveByForceAndByItself(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	id = w.started("web", func(r *CreateRequest) { r.HostConfig.AutoRemove = true })
	removed := w.waitFor(id, apicontainer.WaitConditionRemoved)
	w.tasks.exit(id, 5)
	if code := w.receive(removed); code != 5 {
		t.Errorf("exit status %d", code)
	}
	w.clean()
	if phase := w.phase(id); phase != gone {
		t.Errorf("still %s", phase)
	}
}

func TestARemovalThatIsStuckLeavesADeadContainer(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	w.layers.stuck = errFake
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err == nil {
		t.Fatal("no error")
	}
	if phase := w.phase(id); phase != dead {
		t.Errorf("phase %s", phase)
	}
	w.layers.stuck = nil
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Error("again:", err)
	}
}

func TestPauseAndUnpauseAreToldOnce(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	if err := w.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	expectKind(t, w.Pause(t.Context(), id), errdefs.Conflict, errdefs.Paused)
	_, err := w.ExecCreate(t.Context(), id, apicontainer.ExecCreateRequest{Cmd: []string{"x"}})
	expectKind(t, err, errdefs.Conflict, errdefs.Paused)
	if err := w.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ended := w.waitFor(id, apicontainer.WaitConditionNextExit)
	w.tasks.exit(id, 0)
	w.receive(ended)
	if got := strings.Join(w.told(id), " "); got != "create start pause unpause die" {
		t.Errorf("events %s", got)
	}
}

func TestAKillThawsWhatIsPaused(t *testing.T) {
	w := newWorld(t).run()
	id := w.started("web")
	if err := w.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.tasks.onSignal = nil
	if err := w.Kill(t.Context(), id, "TERM"); err != nil {
		t.Fatal(err)
	}
	if phase := w.phase(id); phase != running {
		t.Errorf("phase %s", phase)
	}
}

func TestNamesAndPrefixes(t *testing.T) {
	w := newWorld(t).run()
	id := w.create("web")
	_, err := w.Create(t.Context(), CreateRequest{Name: "/web", Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"x"}}})
	expectKind(t, err, errdefs.Conflict, errdefs.NameTaken)
	want := fmt.Sprintf(`Conflict. The container name "/web" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, id)
	if err.Error() != want {
		t.Errorf("text %q", err)
	}
	for _, name := range []string{"-x", "x", "a b", "../x", "a/b"} {
		_, err := w.Create(t.Context(), CreateRequest{Name: name, Config: &apicontainer.Config{Image: "busybox", Cmd: []string{"x"}}})
		expectKind(t, err, errdefs.InvalidArgument, "")
	}
	if err := w.Rename(t.Context(), "web", "site"); err != nil {
		t.Fatal(err)
	}
	w.create("web")
	for range 17 {
		w.create("") // 19 ids: two begin with the same digit
	}
	ambiguous := 0
	for _, digit := range "0123456789abcdef" {
		if _, err := w.index.find(string(digit)); errdefs.CodeOf(err) == errdefs.AmbiguousPrefix {
			ambiguous++
		}
	}
	if ambiguous == 0 {
		t.Error("no prefix is ambiguous")
	}
	if c, err := w.index.find(id); err != nil || c.record.Load().Name != "site" {
		t.Error("the whole id:", err)
	}
}

func TestListShowsWhatFits(t *testing.T) {
	w := newWorld(t).run()
	first := w.create("first", func(r *CreateRequest) { r.Config.Labels = map[string]string{"a": "b"} })
	second := w.started("second")
	for _, c := range []struct {
		options ListOptions
		want    []string
	}{
		{ListOptions{}, []string{second}},
		{ListOptions{All: true}, []string{second, first}},
		{ListOptions{Limit: 1}, []string{second}},
		{ListOptions{All: true, Filters: map[string][]string{"label": {"a=b"}}}, []string{first}},
		{ListOptions{Filters: map[string][]string{"status": {"created"}}}, []string{first}},
		{ListOptions{All: true, Filters: map[string][]string{"name": {"^/?fir"}}}, []string{first}},
		{ListOptions{All: true, Filters: map[string][]string{"before": {"second"}}}, []string{first}},
		{ListOptions{All: true, Filters: map[string][]string{"ancestor": {"other"}}}, nil},
	} {
		list, err := w.List(t.Context(), c.options)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range list {
			got = append(got, line.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v", c.options, got)
		}
	}
	for want, untagged := range map[string]bool{"busybox": false, busybox.String(): true} {
		w.images.untagged = untagged
		list, err := w.List(t.Context(), ListOptions{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		if list[0].Image != want {
			t.Errorf("its image is shown as %q, expected %s", list[0].Image, want)
		}
	}
	_, err := w.List(t.Context(), ListOptions{Filters: map[string][]string{"colour": {"red"}}})
	expectKind(t, err, errdefs.InvalidArgument, "")
}
