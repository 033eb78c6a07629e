package supervisor_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestEachRuntime has every runtime that is here do all that a supervisor asks
// for, side by side under one supervisor: a runtime is chosen for each container.
func TestEachRuntime(t *testing.T) {
	own, err := filepath.Abs("../bin/ocirun")
	if err != nil {
		t.Fatal(err)
	}
	s := newStack(t)
	for _, name := range []string{"runc", "crun", own} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			runtime, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("not here: %v", err)
			}
			s.useRuntime(t, runtime)
		})
	}
}

// withoutHybrid is how crun is called on a host whose v2 hierarchy has a
// controller beside the v1 ones, which it refuses: it does not get to see it.
func withoutHybrid(runtime string) string {
	const controllers = "/sys/fs/cgroup/unified/cgroup.controllers"
	left, _ := os.ReadFile(controllers)
	if filepath.Base(runtime) != "crun" || len(strings.TrimSpace(string(left))) == 0 {
		return runtime
	}
	return fmt.Sprintf(`unshare -m sh -c 'mount --bind /dev/null %s && exec "$0" "$@"' %s`, controllers, runtime)
}

// useRuntime creates, starts, executes, pauses, updates, reads, signals, deletes.
func (s *stack) useRuntime(t *testing.T, runtime string) {
	id, ctx, said := "r-"+filepath.Base(runtime), t.Context(), filepath.Join(s.dir, "said-"+filepath.Base(runtime))
	script := filepath.Join(s.dir, "runtime-"+filepath.Base(runtime)) // to hear what it is told
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\necho \"$@\" >>%s\nexec %s \"$@\"\n", said, withoutHybrid(runtime)), 0o755); err != nil {
		t.Fatal(err)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	answer, err := s.client.CreateContainer(ctx, &api.CreateContainerRequest{
		Id: id, BundlePath: s.bundle("trap 'exit 9' TERM; while :; do sleep 0.05; done"), CreateOnly: true, NoPivotRoot: true,
		Runtime: script, RuntimeArgs: []string{"--debug"},
	})
	must(nil, err)
	if answer.Container.Runtime != script || answer.Container.Status != "created" {
		t.Errorf("created as %v", answer.Container)
	}
	must(s.client.StartContainer(ctx, &api.StartContainerRequest{Id: id}))
	must(s.client.AddProcess(ctx, &api.AddProcessRequest{Id: id, Pid: "p", Args: []string{"sh", "-c", "exit 3"}}))
	if exit := s.wait(id, "p"); exit.Status != 3 {
		t.Errorf("exit of an added process %v", exit)
	}
	must(nil, s.turn(id, "paused"))
	must(nil, s.turn(id, "running"))
	must(s.client.UpdateContainer(ctx, &api.UpdateContainerRequest{Id: id, Resources: &api.UpdateResource{MemoryLimit: 64 << 20}}))
	stats, err := s.client.Stats(ctx, &api.StatsRequest{Id: id})
	if err != nil || stats.CgroupStats.MemoryStats.Usage.Limit != 64<<20 || stats.CgroupStats.PidsStats.Current == 0 {
		t.Errorf("stats %v, %v", stats, err)
	}
	must(s.client.Signal(ctx, &api.SignalRequest{Id: id, Signal: 15}))
	if exit := s.wait(id, ""); exit.Status != 9 {
		t.Errorf("exit %v", exit)
	}
	s.delete(id, false)
	calls := read(t, said)
	for _, verb := range []string{"create", "start", "exec", "update", "delete"} {
		if !strings.Contains(calls, " "+verb+" ") {
			t.Errorf("%s was not called: %s", verb, calls)
		}
	}
	for call := range strings.Lines(calls) {
		if !strings.HasPrefix(call, "--root "+filepath.Join(s.stateDir()+"-runtime", filepath.Base(script))+" --debug ") {
			t.Errorf("it was called with %s", call)
		}
	}
	if !strings.Contains(calls, " --no-pivot ") {
		t.Errorf("noPivotRoot did not arrive: %s", calls)
	}
}
