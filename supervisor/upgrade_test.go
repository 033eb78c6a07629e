package supervisor_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// previousRevision is what was built before: what SUPERVISOR_TEST_PREVIOUS
// names, else the last release, else, before there is one, the tenth change ago
// of those that shims can notice.
func previousRevision(t *testing.T) string {
	t.Helper()
	if named := os.Getenv("SUPERVISOR_TEST_PREVIOUS"); named != "" {
		return named
	}
	for _, args := range [][]string{
		{"describe", "--tags", "--abbrev=0", "--match", "v*"},
		{"rev-list", "--max-count=1", "--skip=10", "HEAD", "--", "../shim", "../runtime", "../proto/shim"},
	} {
		if said, err := exec.Command("git", args...).Output(); err == nil && len(said) > 0 {
			return strings.TrimSpace(string(said))
		}
	}
	t.Skip("no git history to build a previous release from")
	return ""
}

// buildPrevious builds shim and, in the full size, supervisor of another
// revision.
func buildPrevious(t *testing.T) (bin string) {
	t.Helper()
	revision := previousRevision(t)
	source, bin := t.TempDir(), t.TempDir()
	archive := exec.Command("git", "archive", revision)
	archive.Dir = ".."
	unpack := exec.Command("tar", "-x", "-C", source)
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := archive.Start(); err != nil {
		t.Fatal(err)
	}
	if said, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpacking %s: %v: %s", revision, err, said)
	}
	if err := archive.Wait(); err != nil {
		t.Fatalf("git archive %s: %v", revision, err)
	}
	args := []string{"build", "-buildvcs=false", "-o", bin + "/", "./cmd/shim"}
	if os.Getenv("SUPERVISOR_TEST_FULL") != "" {
		args = append(args, "./cmd/supervisor")
	}
	build := exec.Command("go", args...)
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", revision, err, said)
	}
	t.Logf("the previous build is of %s", revision)
	return bin
}

// TestUpgradeInPlace: containers of the previous build's supervisor and shims go
// on with this build's supervisor, and everything can be done to them.
func TestUpgradeInPlace(t *testing.T) {
	s := newStack(t)
	previous, current := buildPrevious(t), s.bin
	before := previous
	if _, err := os.Stat(filepath.Join(previous, "supervisor")); err != nil {
		before = current
	}
	for _, how := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		name := strings.ToLower(strings.TrimPrefix(unix.SignalName(how), "SIG"))
		s.end(unix.SIGTERM)
		s.bin, s.flags = before, []string{"--shim", filepath.Join(previous, "shim")}
		s.start()
		containers := s.liveBefore(name)
		s.end(how)
		s.bin, s.flags = current, nil
		s.start()
		s.liveAfter(name, containers)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.process.Process.Pid))
	if err != nil || filepath.Dir(exe) != current {
		t.Errorf("the supervisor is %s, %v", exe, err)
	}
}

// before is what a test of an upgrade leaves to the next supervisor.
type before struct {
	shim   uint32
	output *os.File
	seq    uint64
}

// liveBefore makes containers in every state.
func (s *stack) liveBefore(name string) before {
	t := s.t
	t.Helper()
	output, err := makeFifo(filepath.Join(s.dir, "out-"+name))
	if err != nil {
		t.Fatal(err)
	}
	for id, request := range map[string]*api.CreateContainerRequest{
		"running": {
			BundlePath: s.bundle("trap 'echo last words; exit 5' TERM; echo hello; while :; do sleep 0.05; done"),
			Stdout:     output.Name(), Log: &api.LogSpec{Driver: "json-file", Path: filepath.Join(s.dir, "log-"+name)},
		},
		"created": {BundlePath: s.bundle("exit 6"), CreateOnly: true},
		"paused":  {BundlePath: s.bundle("exec sleep 1000")},
		"exited":  {BundlePath: s.bundle("exit 7")},
	} {
		request.Id = id + "-" + name
		if _, err := s.client.CreateContainer(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.turn("paused-"+name, "paused"); err != nil {
		t.Fatal(err)
	}
	s.wait("exited-"+name, "")
	if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: "running-" + name, Pid: "old", Args: []string{"sleep", "1000"}}); err != nil {
		t.Fatal(err)
	}
	state, err := s.client.State(t.Context(), &api.StateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return before{shim: s.state("running-" + name).ShimPid, output: output, seq: state.Seq}
}

// liveAfter does with them what can be done.
func (s *stack) liveAfter(name string, before before) {
	t := s.t
	t.Helper()
	running := s.state("running-" + name)
	if running.Status != "running" || running.ShimPid != before.shim || len(running.Processes) != 2 {
		t.Errorf("the running container is %v, its shim was %d", running, before.shim)
	}
	if _, err := s.client.AddProcess(t.Context(), &api.AddProcessRequest{Id: running.Id, Pid: "new", Args: []string{"sh", "-c", "exit 4"}}); err != nil {
		t.Error(err)
	}
	if exit := s.wait(running.Id, "new"); exit.Status != 4 {
		t.Errorf("exit of a new process %v", exit)
	}
	for pid, signal := range map[string]unix.Signal{"old": unix.SIGKILL, "init": unix.SIGTERM} {
		if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: running.Id, Pid: pid, Signal: uint32(signal)}); err != nil {
			t.Error(err)
		}
	}
	if old, init := s.wait(running.Id, "old"), s.wait(running.Id, "init"); old.Status != 137 || init.Status != 5 {
		t.Errorf("exits %v, %v", old, init)
	}
	if exit := s.wait("exited-"+name, ""); exit.Status != 7 {
		t.Errorf("exit before the upgrade %v", exit)
	}
	if err := s.turn("paused-"+name, "running"); err != nil {
		t.Error(err)
	}
	if _, err := s.client.StartContainer(t.Context(), &api.StartContainerRequest{Id: "created-" + name}); err != nil {
		t.Error(err)
	}
	if exit := s.wait("created-"+name, ""); exit.Status != 6 {
		t.Errorf("exit of what was only created %v", exit)
	}
	for _, id := range []string{"running", "created", "paused", "exited"} {
		s.delete(id+"-"+name, true)
	}
	before.output.WriteString("end")
	defer before.output.Close()
	said := make([]byte, len("hello\nlast words\nend"))
	if _, err := io.ReadFull(before.output, said); err != nil || string(said) != "hello\nlast words\nend" {
		t.Errorf("it wrote %q, %v", said, err)
	}
	if log := read(t, filepath.Join(s.dir, "log-"+name)); strings.Count(log, "hello") != 1 || strings.Count(log, "last words") != 1 {
		t.Errorf("it logged %s", log)
	}
	events := s.eventsAfter(before.seq)
	for _, want := range []string{"exit running-" + name + " init 5", "exit running-" + name + " old 137", "start-container created-" + name + " init", "resume paused-" + name, "delete running-" + name} {
		if !slices.Contains(events, want) {
			t.Errorf("no %q after number %d: %q", want, before.seq, events)
		}
	}
	if count(events, "snapshot") > 0 || count(events, "created") > 0 {
		t.Errorf("events from before the upgrade came again: %q", events)
	}
}

// eventsAfter returns the stored events after seq.
func (s *stack) eventsAfter(seq uint64) (events []string) {
	s.t.Helper()
	stream, err := s.client.Events(s.t.Context(), &api.EventsRequest{Resume: true, AfterSeq: seq, StoredOnly: true})
	if err != nil {
		s.t.Fatal(err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return events
		}
		events = append(events, line(event))
	}
}
