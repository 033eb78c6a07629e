package supervisor_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// life is a container of TestKillsOfTheSupervisorLoseNothing.
type life struct {
	id     string
	status int
	log    string
	fifo   *fifo
	added  bool // its second process was started, and exits with status + 1
}

const (
	lifeLines = 1000 // that a container writes, in bursts of burstLines
	burst     = 50
)

// lifeScript takes a little over a second: twenty of them write 10,000 lines a
// second.
const lifeScript = `i=0
while [ $i -lt %d ]; do
	n=$((i+%d))
	while [ $i -lt $n ]; do echo line $i; i=$((i+1)); done
	usleep %d
done
exit %d`

// TestKillsOfTheSupervisorLoseNothing kills the supervisor at random moments
// while containers start, write, exec and exit, and others just run.
func TestKillsOfTheSupervisorLoseNothing(t *testing.T) {
	s := newStack(t)
	s.ownSession = true // from the first kill on, as engined and systemd start it
	const side = 20     // containers at the same time
	kills, idle := size(t, 4, 200), size(t, 5, 100)
	s.runMany("idle", idle)
	f := s.follow()
	bundles := make([]string, side)
	for i := range bundles {
		bundles[i] = s.bundle(fmt.Sprintf(lifeScript, lifeLines, burst, 40_000, i))
	}
	over := make(chan struct{})
	var lives []life
	var mu sync.Mutex // guards lives
	var lines atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for i := range side {
		clients.Go(func() {
			for n, lived := 0, false; !closed(over) || !lived; n++ {
				one := life{id: fmt.Sprintf("c%d-%d", i, n), status: i}
				counted, err := s.live(&one, bundles[i])
				if err != nil {
					t.Errorf("%s: %v", one.id, err)
					return
				}
				if counted {
					lived = true
					lines.Add(lifeLines)
					mu.Lock()
					lives = append(lives, one)
					mu.Unlock()
				}
			}
		})
	}
	alive := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(lives)
	}
	back := s.killOften(kills, func() bool { return alive() >= side/4 })
	between := alive()
	close(over)
	clients.Wait() // for at least one whole life of each
	took := time.Since(began)
	t.Logf("%d kills beside %d idle containers, %d containers lived, %d of them between kills, %.0f lines/s; served again after %v (median), %v at most",
		len(back), idle, len(lives), between, float64(lines.Load())/took.Seconds(), back[len(back)/2], back[len(back)-1])
	if between == 0 {
		t.Error("no container lived between the kills")
	}
	events := f.until(t, "all deletes", func(events []string) bool {
		return count(events, "delete c") >= len(lives)
	})
	occurrences := map[string]int{}
	for _, event := range events {
		occurrences[event]++
	}
	for _, one := range lives {
		one.check(t, occurrences)
	}
}

// killOften kills and starts the supervisor until that is enough, and returns,
// sorted, how long it was until it answered again.
func (s *stack) killOften(kills int, enough func() bool) (back []time.Duration) {
	late := time.Now().Add(patience)
	pause := 200 * time.Millisecond
	for n := 0; n < kills || !enough() && time.Now().Before(late); n++ {
		if n >= kills { // this machine needs longer for a life
			pause += pause / 4
		}
		time.Sleep(rand.N(pause)) // any moment must do
		s.end(unix.SIGKILL)
		began := time.Now()
		s.start()
		back = append(back, time.Since(began))
	}
	slices.Sort(back)
	return back
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// runMany starts containers that do nothing, a few at a time.
func (s *stack) runMany(prefix string, many int) {
	slots := make(chan struct{}, 10)
	var all sync.WaitGroup
	for i := range many {
		slots <- struct{}{}
		bundle := s.bundle("exec sleep 100000")
		all.Go(func() {
			defer func() { <-slots }()
			_, err := s.client.CreateContainer(s.t.Context(), &api.CreateContainerRequest{Id: fmt.Sprintf("%s%d", prefix, i), BundlePath: bundle})
			if err != nil {
				s.t.Errorf("creating %s%d: %v", prefix, i, err)
			}
		})
	}
	all.Wait()
}

// retry calls until the supervisor answers: it is killed meanwhile.
func (s *stack) retry(call func() error) error {
	late := time.Now().Add(patience)
	for {
		err := call()
		if err == nil || errdefs.KindOf(err) != errdefs.Unavailable || time.Now().After(late) {
			return err
		}
	}
}

// live takes a container from its creation to its deletion. It does not count if
// the supervisor died in its creation and the next one removed it.
func (s *stack) live(one *life, bundle string) (counted bool, err error) {
	ctx := s.t.Context()
	one.log = filepath.Join(s.dir, "log-"+one.id)
	if one.fifo, err = openFifo(filepath.Join(s.dir, "fifo-"+one.id)); err != nil {
		return false, err
	}
	defer one.fifo.finish()
	_, err = s.client.CreateContainer(ctx, &api.CreateContainerRequest{
		Id: one.id, BundlePath: bundle, Stdout: one.fifo.path, Log: &api.LogSpec{Driver: "json-file", Path: one.log},
	}, grpc.WaitForReady(true))
	if errdefs.KindOf(err) == errdefs.Unavailable {
		err = s.retry(func() error {
			_, err := s.client.State(ctx, &api.StateRequest{Id: one.id}, grpc.WaitForReady(true))
			return err
		})
		if errdefs.KindOf(err) == errdefs.NotFound {
			return false, s.undone(one.id) // the next life has the same bundle and cgroup
		}
	}
	if err != nil {
		return false, fmt.Errorf("creating: %w", err)
	}
	_, err = s.client.AddProcess(ctx, &api.AddProcessRequest{Id: one.id, Pid: "more", Args: []string{"sh", "-c", fmt.Sprintf("exit %d", one.status+1)}, Env: []string{"PATH=/bin"}})
	one.added = err == nil // else the supervisor is dead or the container is
	var answer *api.WaitResponse
	err = s.retry(func() (err error) {
		answer, err = s.client.Wait(ctx, &api.WaitRequest{Id: one.id}, grpc.WaitForReady(true))
		return err
	})
	if err != nil || int(answer.Exit.Status) != one.status {
		return false, fmt.Errorf("exit %v, %w", answer, err)
	}
	err = s.retry(func() error {
		_, err := s.client.DeleteContainer(ctx, &api.DeleteContainerRequest{Id: one.id}, grpc.WaitForReady(true))
		return err
	})
	if err != nil && errdefs.KindOf(err) != errdefs.NotFound { // the answer to the first try was lost
		return false, fmt.Errorf("deleting: %w", err)
	}
	return true, nil
}

// undone waits until nothing is left of a creation that was cut off.
func (s *stack) undone(id string) error {
	err := s.retry(func() error {
		_, err := s.client.DeleteContainer(s.t.Context(), &api.DeleteContainerRequest{Id: id, Force: true}, grpc.WaitForReady(true))
		return err
	})
	if errdefs.KindOf(err) != errdefs.NotFound {
		return fmt.Errorf("deleting what was cut off: expected NotFound, got %w", err)
	}
	return nil
}

// check expects each of the container's events and lines once.
func (l life) check(t *testing.T, events map[string]int) {
	t.Helper()
	exit := func(pid string, status int) string {
		return strings.TrimSuffix(fmt.Sprintf("exit %s %s %d", l.id, pid, status), " 0")
	}
	wanted := []string{"created " + l.id, "start-container " + l.id + " init", exit("init", l.status), "delete " + l.id}
	if l.added {
		wanted = append(wanted, "start-process "+l.id+" more")
		// It exits by itself or, if it began late, is killed with its container.
		own, killed := exit("more", l.status+1), exit("more", 137)
		if n := events[own] + events[killed]; n != 1 {
			t.Errorf("%d exits of %s's second process", n, l.id)
		}
	}
	for _, want := range wanted {
		if n := events[want]; n != 1 {
			t.Errorf("%q came %d times", want, n)
		}
	}
	if l.fifo.err != nil || l.fifo.lines != lifeLines {
		t.Errorf("%s: the fifo brought %d lines, expected %d: %v", l.id, l.fifo.lines, lifeLines, l.fifo.err)
	}
	if err := checkLog(l.log); err != nil {
		t.Errorf("%s: %v", l.id, err)
	}
}

// checkLog expects each line once, in order.
func checkLog(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if len(lines) != lifeLines {
		return fmt.Errorf("%d lines in the log, expected %d", len(lines), lifeLines)
	}
	for i, line := range lines {
		var entry struct{ Log string }
		if err := json.Unmarshal(line, &entry); err != nil || entry.Log != fmt.Sprintf("line %d\n", i) {
			return fmt.Errorf("line %d of the log is %q, %w", i, line, err)
		}
	}
	return nil
}

// fifo is a client's reader of a container's output, which expects "line 0",
// "line 1" and so on, each once.
type fifo struct {
	path string
	file *os.File
	done chan struct{}

	// After done:
	lines int
	err   error
}

// lastWords is what finish writes behind everything that the shim has written.
const lastWords = "that was all"

// makeFifo makes a fifo and opens it for reading; a write end of its own keeps it
// from ending.
func makeFifo(path string) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func openFifo(path string) (*fifo, error) {
	file, err := makeFifo(path)
	if err != nil {
		return nil, err
	}
	f := &fifo{path: path, file: file, done: make(chan struct{})}
	go f.read()
	return f, nil
}

func (f *fifo) read() {
	defer close(f.done)
	for scanner := bufio.NewScanner(f.file); scanner.Scan() && scanner.Text() != lastWords; f.lines++ {
		if want := fmt.Sprint("line ", f.lines); scanner.Text() != want && f.err == nil {
			f.err = fmt.Errorf("%q came where %q was expected", scanner.Text(), want)
		}
	}
}

// finish waits for the reader, which has then read all that was written.
func (f *fifo) finish() {
	fmt.Fprintln(f.file, lastWords)
	<-f.done
	f.file.Close()
	os.Remove(f.path)
}
