package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func openTestJournal(t testing.TB, dir string, limits limits) *journal {
	t.Helper()
	j, err := openJournal(dir, limits, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.close() })
	return j
}

var roomy = limits{events: 8000, bytes: 8 << 20}

// put appends and publishes, and returns the number or 0.
func put(t testing.TB, j *journal, typ, id, pid string) uint64 {
	t.Helper()
	event := &api.Event{Type: typ, Id: id, Pid: pid}
	recorded, err := j.append(event)
	if err != nil {
		t.Fatal(err)
	}
	if !recorded {
		return 0
	}
	j.publish(event.Seq)
	return event.Seq
}

// all reads everything after seq that is there, as "type id pid".
func all(t testing.TB, j *journal, seq uint64) (events []string, err error) {
	t.Helper()
	r := j.readAfter(seq)
	defer r.close()
	for last := seq; ; {
		event, _, err := r.read()
		if errors.Is(err, errEnd) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		if event.Seq != last+1 {
			t.Fatalf("event %d after %d", event.Seq, last)
		}
		last = event.Seq
		events = append(events, fmt.Sprintf("%s %s %s", event.Type, event.Id, event.Pid))
	}
}

func TestJournalContinuesAfterReopening(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir, roomy)
	before := j.last()
	put(t, j, eventCreated, "a", "")
	last := put(t, j, eventStartContainer, "a", "init")
	j.close()

	j = openTestJournal(t, dir, roomy)
	if j.last() != last {
		t.Fatalf("last number %d, was %d", j.last(), last)
	}
	if next := put(t, j, eventExit, "a", "init"); next != last+1 {
		t.Fatalf("next number %d after %d", next, last)
	}
	got, err := all(t, j, before)
	if want := []string{"created a ", "start-container a init", "exit a init"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := all(t, j, last); err != nil || len(got) != 1 {
		t.Errorf("after %d: %v, %v", last, got, err)
	}
}

func TestJournalRecordsStartsAndExitsOnce(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir, roomy)
	put(t, j, eventCreated, "a", "")
	put(t, j, eventStartProcess, "a", "p")
	put(t, j, eventExit, "a", "p")
	for _, repeat := range []struct{ typ, pid string }{{eventCreated, ""}, {eventStartProcess, "p"}, {eventExit, "p"}} {
		if put(t, j, repeat.typ, "a", repeat.pid) != 0 {
			t.Errorf("%s is recorded twice", repeat.typ)
		}
	}
	j.close()
	j = openTestJournal(t, dir, roomy)
	if put(t, j, eventExit, "a", "p") != 0 {
		t.Error("an exit is recorded again after reopening")
	}
	if put(t, j, eventExit, "b", "init") != 0 {
		t.Error("an exit of a container that was never created is recorded")
	}
	put(t, j, eventForget, "a", "p")
	if put(t, j, eventStartProcess, "a", "p") == 0 || put(t, j, eventExit, "a", "p") == 0 {
		t.Error("a forgotten name cannot be used again")
	}
	put(t, j, eventDelete, "a", "")
	if put(t, j, eventDelete, "a", "") != 0 {
		t.Error("a delete is recorded twice")
	}
	if put(t, j, eventCreated, "a", "") == 0 {
		t.Error("a deleted id cannot be used again")
	}
}

// The cgroup and the exit of the first process both tell of a kill.
func TestJournalRecordsAnOOMKillOnce(t *testing.T) {
	j := openTestJournal(t, t.TempDir(), roomy)
	put(t, j, eventCreated, "a", "")
	for _, one := range []struct {
		kills uint64
		new   bool
	}{{1, true}, {1, false}, {3, true}, {2, false}, {1, false}, {4, true}} {
		recorded, err := j.append(&api.Event{Type: eventOOM, Id: "a", OomKills: one.kills})
		if err != nil || recorded != one.new {
			t.Errorf("%d kills: recorded %v, %v, want %v", one.kills, recorded, err, one.new)
		}
	}
}

func TestJournalRemembersExitsThatHaveLeftIt(t *testing.T) {
	dir := t.TempDir()
	small := limits{events: 80, bytes: 1 << 20}
	j := openTestJournal(t, dir, small)
	before := put(t, j, eventCreated, "old", "")
	put(t, j, eventExit, "old", "init")
	for i := range 500 {
		put(t, j, eventCreated, fmt.Sprint(i), "")
		put(t, j, eventDelete, fmt.Sprint(i), "")
	}
	for _, state := range []string{"before", "after"} {
		if _, err := all(t, j, before); !errors.Is(err, errGone) {
			t.Errorf("%s reopening: reading what has gone: %v", state, err)
		}
		if put(t, j, eventExit, "old", "init") != 0 {
			t.Errorf("%s reopening: the exit is recorded again", state)
		}
		got, err := all(t, j, j.oldest()-1)
		if err != nil || len(got) < 60 || len(got) > 80 {
			t.Errorf("%s reopening: %d events held, %v", state, len(got), err)
		}
		j.close()
		j = openTestJournal(t, dir, small)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) > segmentShare+1 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestJournalIsBoundedBySize(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir, limits{events: 1 << 20, bytes: 64 << 10})
	long := string(make([]byte, 1000))
	for i := range 1000 {
		put(t, j, eventCreated, fmt.Sprint(i), long)
		put(t, j, eventDelete, fmt.Sprint(i), "")
	}
	total := int64(0)
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		about, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += about.Size()
	}
	if total > 64<<10 {
		t.Errorf("%d bytes on disk", total)
	}
}

// TestJournalOfManyContainersStillFillsItsSegments: each segment begins with what is
// recorded of all of them, which may be more than a segment's share of the limit.
func TestJournalOfManyContainersStillFillsItsSegments(t *testing.T) {
	const bytes, containers = 64 << 10, 1000
	dir := t.TempDir()
	j := openTestJournal(t, dir, limits{events: 1 << 20, bytes: bytes})
	for i := range containers {
		put(t, j, eventCreated, fmt.Sprintf("container-%d", i), "")
	}
	for range 100 {
		put(t, j, eventUpdate, "container-0", "")
	}
	kept := put(t, j, eventPause, "container-0", "")
	for reopened := range 2 {
		if got, err := all(t, j, kept-50); err != nil || len(got) != 50 {
			t.Errorf("opened %d times: %d of the last 50 events, %v", reopened+1, len(got), err)
		}
		j.close()
		j = openTestJournal(t, dir, limits{events: 1 << 20, bytes: bytes})
	}
}

// TestJournalWithoutRoomIsRefused: there would be segments without an event.
func TestJournalWithoutRoomIsRefused(t *testing.T) {
	for _, events := range []int{-1, 1, segmentShare - 1} {
		_, err := Open(Config{Workers: 1, Journal: JournalLimits{Events: events}, Host: &runtime.Host{StateDir: t.TempDir()}, Logger: quiet})
		if errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%d: %v", events, err)
		}
	}
}

// A kill at any byte: whatever is left of the file, the whole events in it are
// there, the rest is gone, and the next number follows.
func TestJournalSurvivesAnEndAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir, roomy)
	before := j.last()
	sizes := []int64{j.current().size}
	for i := range 5 {
		put(t, j, eventCreated, fmt.Sprint(i), "")
		sizes = append(sizes, j.current().size)
	}
	path := j.current().path
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := sizes[0]; size <= int64(len(whole)); size++ {
		events := 0
		for events < 5 && sizes[events+1] <= size {
			events++
		}
		copied := t.TempDir()
		if err := os.WriteFile(filepath.Join(copied, filepath.Base(path)), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		j := openTestJournal(t, copied, roomy)
		if j.last() != before+uint64(events) {
			t.Fatalf("%d bytes: last number %d, expected %d", size, j.last(), before+uint64(events))
		}
		put(t, j, eventCreated, "next", "")
		if got, err := all(t, j, before); err != nil || len(got) != events+1 {
			t.Fatalf("%d bytes: %v, %v", size, got, err)
		}
		j.close()
	}
}

func TestJournalNeverReusesNumbersAfterDamage(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir, roomy)
	before := j.last()
	middle := j.current().size
	for i := range 20 {
		put(t, j, eventCreated, fmt.Sprint(i), "")
	}
	last, path := j.last(), j.current().path
	j.close()
	for name, damage := range map[string]func([]byte) []byte{
		"event":  func(b []byte) []byte { b[middle+30] ^= 1; return b },
		"header": func(b []byte) []byte { b[10] ^= 1; return b },
		"all":    func([]byte) []byte { return []byte("not a journal at all") },
		"empty":  func([]byte) []byte { return nil },
	} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := t.TempDir()
		if err := os.WriteFile(filepath.Join(copied, filepath.Base(path)), damage(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		j := openTestJournal(t, copied, roomy)
		if next := put(t, j, eventCreated, "next", ""); next <= last {
			t.Errorf("%s: number %d is used again", name, next)
		}
		for _, seq := range []uint64{before + 10, last} {
			if _, err := all(t, j, seq); !errors.Is(err, errGone) {
				t.Errorf("%s: reading after %d: %v", name, seq, err)
			}
		}
		j.close()
	}
}

func TestJournalOfALaterBootContinuesTheNumbers(t *testing.T) {
	first := openTestJournal(t, t.TempDir(), roomy)
	last := put(t, first, eventCreated, "a", "")
	second := openTestJournal(t, t.TempDir(), roomy)
	if second.last() < last {
		t.Errorf("the new journal begins at %d, the old one ended at %d", second.last(), last)
	}
	if _, err := all(t, second, 0); !errors.Is(err, errGone) {
		t.Errorf("reading from the beginning of time: %v", err)
	}
}

func TestSlowReaderLosesItsPlaceAndIsTold(t *testing.T) {
	j := openTestJournal(t, t.TempDir(), limits{events: 80, bytes: 1 << 20})
	r := j.readAfter(j.last())
	defer r.close()
	put(t, j, eventCreated, "first", "")
	if event, _, err := r.read(); err != nil || event.Id != "first" {
		t.Fatal(event, err)
	}
	for i := range 200 {
		put(t, j, eventCreated, fmt.Sprint(i), "")
	}
	if _, _, err := r.read(); !errors.Is(err, errGone) {
		t.Errorf("a reader left behind got %v", err)
	}
}

func TestUnpublishedEventsAreInvisible(t *testing.T) {
	j := openTestJournal(t, t.TempDir(), roomy)
	r := j.readAfter(j.last())
	defer r.close()
	event := &api.Event{Type: eventCreated, Id: "a"}
	if _, err := j.append(event); err != nil {
		t.Fatal(err)
	}
	_, wake, err := r.read()
	if !errors.Is(err, errEnd) {
		t.Fatalf("read %v before it was published", err)
	}
	j.publish(event.Seq)
	<-wake
	if got, _, err := r.read(); err != nil || got.Id != "a" {
		t.Errorf("after publishing: %v, %v", got, err)
	}
}

func FuzzJournalOpensAnything(f *testing.F) {
	dir := f.TempDir()
	j := openTestJournal(f, dir, roomy)
	put(f, j, eventCreated, "a", "")
	put(f, j, eventExit, "a", "init")
	path := j.current().path
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(dir, roomy, quiet)
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		last := j.last()
		if put(t, j, eventCreated, "a fresh one", "") <= last {
			t.Error("numbers do not grow")
		}
		if got, err := all(t, j, last); err != nil || len(got) != 1 {
			t.Errorf("reading the new event: %v, %v", got, err)
		}
	})
}
