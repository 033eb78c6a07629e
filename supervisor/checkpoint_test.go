package supervisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// savingRuntime stands for a runtime with CRIU: its checkpoint notes how it was
// called and, unless asked to leave the container running, ends it; its restore
// notes the same and runs the bundle anew.
const savingRuntime = `#!/bin/sh
echo "$@" >>%[2]s
case " $* " in
*" checkpoint "*)
	case " $* " in *" --leave-running "*) exit 0 ;; esac
	for id; do :; done
	while [ "$1" != checkpoint ]; do kept="$kept $1"; shift; done
	exec %[1]s $kept kill $id KILL ;;
*" restore "*)
	case " $* " in *" --tcp-established "*) ;; *)
		while [ $# -gt 0 ]; do [ "$1" = --work-path ] && echo "(00.1) Error (criu/x.c:1): no such socket" >$2/restore.log; shift; done
		echo restoring failed >&2
		exit 1 ;;
	esac
	while [ $# -gt 0 ]; do
		case "$1" in
		--image-path | --work-path | --empty-ns) shift ;;
		--tcp-established | --ext-unix-sk | --shell-job) ;;
		restore) kept="$kept run" ;;
		*) kept="$kept $1" ;;
		esac
		shift
	done
	exec %[1]s $kept ;;
esac
exec %[1]s "$@"
`

// TestCheckpointsAndRestore: what goes to the runtime, what comes back, and that
// a restored container has stdio and exit status like any other.
func TestCheckpointsAndRestore(t *testing.T) {
	s := newStack(t)
	said := filepath.Join(s.dir, "said")
	script := filepath.Join(s.dir, "saving")
	if err := os.WriteFile(script, fmt.Appendf(nil, savingRuntime, s.runtime, said), 0o755); err != nil {
		t.Fatal(err)
	}
	s.runtime = script
	bundle := s.bundle("echo hello; exec sleep 1000")
	if _, err := s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "saved", BundlePath: bundle, Runtime: script}); err != nil {
		t.Fatal(err)
	}
	checkpoints := []*api.Checkpoint{
		{Name: "first", Shell: true},
		{Name: "second", Exit: true, Tcp: true, UnixSockets: true, EmptyNS: []string{"network"}},
	}
	for _, one := range checkpoints {
		if _, err := s.client.CreateCheckpoint(t.Context(), &api.CreateCheckpointRequest{Id: "saved", Checkpoint: one}); err != nil {
			t.Fatal(err)
		}
	}
	if exit := s.wait("saved", ""); exit.Status != 137 {
		t.Errorf("after a checkpoint with exit: %v", exit)
	}
	dir := filepath.Join(bundle, "checkpoints")
	for _, want := range []string{
		"checkpoint --image-path " + dir + "/first --work-path " + dir + "/first/criu.work --leave-running --shell-job saved\n",
		"checkpoint --image-path " + dir + "/second --work-path " + dir + "/second/criu.work --tcp-established --ext-unix-sk --empty-ns network saved\n",
	} {
		if !strings.Contains(read(t, said), want) {
			t.Errorf("the runtime was not called with %q: %s", want, read(t, said))
		}
	}
	if _, err := s.client.CreateCheckpoint(t.Context(), &api.CreateCheckpointRequest{Id: "saved", Checkpoint: checkpoints[0]}); errdefs.CodeOf(err) != errdefs.NotRunning {
		t.Errorf("a checkpoint of what has stopped: %v", err)
	}
	list, err := s.client.ListCheckpoint(t.Context(), &api.ListCheckpointRequest{Id: "saved"})
	if diff := cmp.Diff(checkpoints, list.GetCheckpoints(), protocmp.Transform()); diff != "" || err != nil {
		t.Error(err, diff)
	}
	s.restoreThem(bundle, script, said)
	if _, err := s.client.DeleteCheckpoint(t.Context(), &api.DeleteCheckpointRequest{Id: "saved", Name: "first"}); err != nil {
		t.Error(err)
	}
	if _, err := s.client.DeleteCheckpoint(t.Context(), &api.DeleteCheckpointRequest{Id: "saved", Name: "first"}); errdefs.KindOf(err) != errdefs.NotFound {
		t.Errorf("deleted twice: %v", err)
	}
}

func (s *stack) restoreThem(bundle, script, said string) {
	t := s.t
	t.Helper()
	output, err := makeFifo(filepath.Join(s.dir, "restored"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	request := func(id, checkpoint string) *api.CreateContainerRequest {
		return &api.CreateContainerRequest{Id: id, BundlePath: bundle, Runtime: script, Checkpoint: checkpoint, Stdout: output.Name()}
	}
	if _, err := s.client.CreateContainer(t.Context(), request("restored", "second")); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(s.stateDir(), "restored")
	want := "restore --detach --bundle " + bundle + " --image-path " + bundle + "/checkpoints/second --work-path " + state + "/init/criu.work" +
		" --tcp-established --ext-unix-sk --empty-ns network --pid-file " + state + "/init/pid restored\n"
	if calls := read(t, said); !strings.Contains(calls, want) {
		t.Errorf("the runtime was not called with %q: %s", want, calls)
	}
	line := make([]byte, 16)
	if n, err := output.Read(line); err != nil || string(line[:n]) != "hello\n" {
		t.Errorf("the restored container wrote %q, %v", line[:n], err)
	}
	if _, err := s.client.Signal(t.Context(), &api.SignalRequest{Id: "restored", Signal: 9}); err != nil {
		t.Error(err)
	}
	if exit := s.wait("restored", ""); exit.Status != 137 {
		t.Errorf("exit of the restored container: %v", exit)
	}
	s.delete("restored", false)
	_, err = s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "restored", BundlePath: bundle, Runtime: script, Checkpoint: "first"})
	if err == nil || !strings.Contains(err.Error(), "restoring failed; criu said: Error (criu/x.c:1): no such socket") {
		t.Errorf("a restore that fails: %v", err)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("a restore that failed left its directory: %v", err)
	}
	_, err = s.client.CreateContainer(t.Context(), &api.CreateContainerRequest{Id: "restored", BundlePath: bundle, Checkpoint: "third"})
	if errdefs.KindOf(err) != errdefs.NotFound || !strings.Contains(err.Error(), "checkpoint: no such checkpoint: third") {
		t.Errorf("from a checkpoint that is not there: %v", err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestContainerGoesOnFromACheckpoint needs a CRIU that works on this kernel.
func TestContainerGoesOnFromACheckpoint(t *testing.T) {
	if said, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu check: %v: %s", err, said)
	}
	own, err := filepath.Abs("../bin/ocirun")
	if err != nil {
		t.Fatal(err)
	}
	if given != "" {
		own = filepath.Join(given, "ocirun")
	}
	s := newStack(t)
	for _, name := range []string{"runc", own} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			runtime, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("not here: %v", err)
			}
			s.goOn(t, runtime)
		})
	}
}

// goOn saves a container that counts, once while it goes on and once at its end,
// and has it go on from both, under a supervisor that is killed meanwhile.
func (s *stack) goOn(t *testing.T, runtime string) {
	ctx := t.Context()
	bundle := s.bundle("n=0; while :; do n=$((n+1)); echo $n; echo $n >/tmp/n; sleep 0.05; done", func(spec *specs.Spec) {
		spec.Root.Readonly = false
	})
	counter, log := filepath.Join(bundle, "rootfs/tmp/n"), filepath.Join(bundle, "log")
	create := func(checkpoint string) {
		t.Helper()
		request := &api.CreateContainerRequest{Id: "saved", BundlePath: bundle, Runtime: runtime, Checkpoint: checkpoint,
			Log: &api.LogSpec{Driver: "json-file", Path: log}}
		if _, err := s.client.CreateContainer(ctx, request); err != nil {
			t.Fatal(err)
		}
	}
	save := func(one *api.Checkpoint) {
		t.Helper()
		if _, err := s.client.CreateCheckpoint(ctx, &api.CreateCheckpointRequest{Id: "saved", Checkpoint: one}); err != nil {
			t.Fatal(err)
		}
	}
	create("")
	s.settles(t, func() error { return countsBeyond(counter, 5) })
	save(&api.Checkpoint{Name: "living"})
	saved := counted(t, counter)
	s.settles(t, func() error { return countsBeyond(counter, saved) })
	save(&api.Checkpoint{Name: "last", Exit: true})
	s.wait("saved", "")
	s.delete("saved", false)
	for _, checkpoint := range []string{"last", "living"} {
		reached := counted(t, counter)
		if checkpoint == "living" { // it goes back to there
			reached = saved
			if err := os.Remove(counter); err != nil {
				t.Fatal(err)
			}
		}
		create(checkpoint)
		s.settles(t, func() error { return countsBeyond(counter, reached) })
		if _, err := s.client.AddProcess(ctx, &api.AddProcessRequest{Id: "saved", Pid: "p", Args: []string{"sh", "-c", "exit 3"}}); err != nil {
			t.Error(err)
		} else if exit := s.wait("saved", "p"); exit.Status != 3 {
			t.Errorf("from %s: exit of an added process %v", checkpoint, exit)
		}
		s.end(unix.SIGKILL)
		s.start()
		reached = counted(t, counter)
		s.settles(t, func() error { return countsBeyond(counter, reached) })
		if _, err := s.client.Signal(ctx, &api.SignalRequest{Id: "saved", Signal: 9}); err != nil {
			t.Error(err)
		}
		if exit := s.wait("saved", ""); exit.Status != 137 {
			t.Errorf("from %s: exit %v", checkpoint, exit)
		}
		s.delete("saved", false)
		if line := fmt.Sprintf(`{"log":"%d\n"`, reached); !strings.Contains(read(t, log), line) {
			t.Errorf("from %s: the log has no line %d", checkpoint, reached)
		}
	}
}

// counted returns how far a container has counted.
func counted(t *testing.T, counter string) (n int) {
	t.Helper()
	for n == 0 { // it may be between its truncation and its content
		fmt.Sscan(read(t, counter), &n)
	}
	return n
}

func countsBeyond(path string, least int) error {
	var n int
	data, err := os.ReadFile(path)
	if err == nil {
		_, err = fmt.Sscan(string(data), &n)
	}
	if err == nil && n <= least {
		err = fmt.Errorf("it counts %d, expected more than %d", n, least)
	}
	return err
}

// TestCheckpointThatFailsLeavesTheContainer: CRIU is absent, or does not work on
// this kernel.
func TestCheckpointThatFailsLeavesTheContainer(t *testing.T) {
	if exec.Command("criu", "check").Run() == nil {
		t.Skip("CRIU works here")
	}
	s := newStack(t)
	c := s.run("a", "exec sleep 1000")
	_, err := s.client.CreateCheckpoint(t.Context(), &api.CreateCheckpointRequest{Id: "a", Checkpoint: &api.Checkpoint{Name: "one"}})
	if err == nil || !strings.Contains(err.Error(), "checkpoint of container a") {
		t.Errorf("%v", err)
	}
	t.Log(err)
	if status := s.state("a").Status; status != "running" {
		t.Errorf("the container is %s", status)
	}
	list, err := s.client.ListCheckpoint(t.Context(), &api.ListCheckpointRequest{Id: "a"})
	if left, _ := os.ReadDir(filepath.Join(c.BundlePath, "checkpoints")); err != nil || len(list.Checkpoints) != 0 || len(left) != 0 {
		t.Errorf("%v, %v are left, %v", list, left, err)
	}
}
