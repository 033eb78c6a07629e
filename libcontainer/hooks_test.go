package libcontainer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/nsenter"
	"github.com/engined/engined/proto/errdefs"
)

// note is a hook that appends its name, what it is told and where it is to a
// file of the host.
func (s *sandbox) note(name string) []specs.Hook {
	script := fmt.Sprintf(`read -r state; echo "%s $state $(hostname) $X $([ -e /tmp ] && [ -d %s ] && echo host)" >> %s`, name, s.dir, filepath.Join(s.dir, "notes"))
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"X=y", "PATH=/bin"}}}
}

func TestHooksRunInOrderWithTheState(t *testing.T) {
	s := newSandbox(t)
	s.spec.Hostname = "inside"
	s.spec.Annotations = map[string]string{"a": "b"}
	inside := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "read -r state; echo startContainer $state $(hostname) > /started"}, Env: []string{"PATH=/bin"}}}
	s.spec.Hooks = &specs.Hooks{
		Prestart: s.note("prestart"), CreateRuntime: s.note("createRuntime"), CreateContainer: s.note("createContainer"),
		StartContainer: inside, Poststart: s.note("poststart"), Poststop: s.note("poststop"),
	}
	s.want("cat /started | wc -l", "1")
	data, err := os.ReadFile(filepath.Join(s.dir, "notes"))
	s.must(err)
	host, err := os.Hostname()
	s.must(err)
	for i, want := range []struct{ name, status, host string }{
		{"prestart", "created", host}, {"createRuntime", "creating", host}, {"createContainer", "creating", "inside"},
		{"poststart", "running", host}, {"poststop", "stopped", host},
	} {
		line := strings.Split(string(data), "\n")[i]
		name, rest, _ := strings.Cut(line, " ")
		var state specs.State
		decoder := json.NewDecoder(strings.NewReader(rest))
		s.must(decoder.Decode(&state))
		if name != want.name || string(state.Status) != want.status || state.ID != s.create.ID || (state.Pid == 0) != (name == "poststop") || state.Bundle != s.dir || state.Annotations["a"] != "b" {
			t.Errorf("line %d: %s", i, line)
		}
		if !strings.HasSuffix(line, "} "+want.host+" y host") {
			t.Errorf("line %d: %s\nwant host name %s", i, line, want.host)
		}
	}
	started, err := os.ReadFile(s.path("started"))
	s.must(err)
	if !strings.Contains(string(data), "\ncreateContainer {") || strings.Count(string(data)+string(started), `"pid":1,`) != 2 {
		t.Errorf("hooks in the container have another pid than its own: %s %s", data, started)
	}
	if !strings.HasPrefix(string(started), "startContainer {") || !strings.HasSuffix(string(started), "} inside\n") {
		t.Errorf("startContainer: %s", started)
	}
}

func TestHooksAreAtHomeAndHaveNoMore(t *testing.T) {
	s := newSandbox(t)
	file, err := os.Open("/dev/null")
	s.must(err)
	defer file.Close()
	s.extra, s.create.PreserveFDs = []*os.File{file}, 1
	note := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exec >> " + filepath.Join(s.dir, "notes") + "; pwd; ls /proc/self/fd"}, Env: []string{"PATH=/bin:/usr/bin"}}}
	s.spec.Hooks = &specs.Hooks{CreateRuntime: note, CreateContainer: note, Poststart: note}
	s.want("test -e /proc/1/fd/3 && echo preserved", "preserved")
	data, err := os.ReadFile(filepath.Join(s.dir, "notes"))
	s.must(err)
	const open = " 0 1 2 3 " // ls has opened one itself
	want := s.dir + open + s.path("") + open + s.dir + open
	if got := strings.Join(strings.Fields(string(data)), " ") + " "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// As with runc and crun a hook that names no environment has that of who runs it.
func TestHooksWithoutAnEnvironment(t *testing.T) {
	t.Setenv("OF_THE_RUNTIME", "yes")
	s := newSandbox(t)
	for _, env := range [][]string{nil, {"PATH=/bin"}} {
		hook := func(file string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo $OF_THE_RUNTIME,$OF_THE_PROCESS >> " + file}, Env: env}}
		}
		s.must(os.RemoveAll(filepath.Join(s.dir, "notes")))
		s.must(os.RemoveAll(s.path("note")))
		s.spec.Process.Env = append(s.spec.Process.Env, "OF_THE_PROCESS=yes")
		notes := hook(filepath.Join(s.dir, "notes"))
		s.spec.Hooks = &specs.Hooks{CreateRuntime: notes, CreateContainer: notes, StartContainer: hook("/note"), Poststop: notes}
		s.want("cat /note", map[bool]string{true: ",yes", false: ","}[env == nil])
		got, err := os.ReadFile(filepath.Join(s.dir, "notes"))
		s.must(err)
		if want := map[bool]string{true: "yes,\nyes,\nyes,\n", false: ",\n,\n,\n"}[env == nil]; string(got) != want {
			t.Errorf("%#v: got %q, want %q", env, got, want)
		}
	}
}

func TestFailingHookUnwinds(t *testing.T) {
	for name, set := range map[string]func(*specs.Hooks, []specs.Hook){
		"prestart":        func(h *specs.Hooks, l []specs.Hook) { h.Prestart = l },
		"createRuntime":   func(h *specs.Hooks, l []specs.Hook) { h.CreateRuntime = l },
		"createContainer": func(h *specs.Hooks, l []specs.Hook) { h.CreateContainer = l },
		"startContainer":  func(h *specs.Hooks, l []specs.Hook) { h.StartContainer = l },
		"poststart":       func(h *specs.Hooks, l []specs.Hook) { h.Poststart = l },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Hooks = &specs.Hooks{}
			set(s.spec.Hooks, []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo why; exit 3"}}})
			r := s.run("sleep", "10")
			if r.err == nil || !strings.Contains(r.err.Error(), "error running "+name+" hook #0: /bin/sh: exit status 3, output: why") {
				t.Errorf("got %+v", r)
			}
			s.wantNothingLeft()
		})
	}
}

// A failed start leaves nothing of what its hooks have started, which without a pid
// namespace does not end with the process.
func TestWhatHooksLeaveGoesWithAFailedStart(t *testing.T) {
	second := 1
	for name, last := range map[string]specs.Hook{
		"failed":   {Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}},
		"too long": {Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000; true"}, Timeout: &second},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.spec.Linux.Namespaces = slices.DeleteFunc(s.spec.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.PIDNamespace })
			s.spec.Mounts = s.spec.Mounts[:0] // proc is of the namespace
			s.spec.Linux.MaskedPaths, s.spec.Linux.ReadonlyPaths = nil, nil
			s.spec.Process.Args = []string{"sleep", "1000"}
			s.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & exit 0"}}, last}}
			start := time.Now()
			if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.err == nil || time.Since(start) > 15*time.Second {
				t.Errorf("after %v: %+v", time.Since(start), r)
			}
			s.wantNothingLeft()
		})
	}
}

// What earlier hooks have made those of poststop take away, also if the start failed
// (runtime.md, lifecycle). Before any hook has run there is nothing.
func TestFailedStartStillHasItsPoststopHooks(t *testing.T) {
	bad := []specs.Hook{{Path: "/bin/false"}}
	for name, c := range map[string]struct {
		set  func(*sandbox)
		want string
	}{
		"createRuntime":   {func(s *sandbox) { s.spec.Hooks.CreateRuntime = bad }, "poststop"},
		"createContainer": {func(s *sandbox) { s.spec.Hooks.CreateContainer = bad }, "poststop"},
		"startContainer":  {func(s *sandbox) { s.spec.Hooks.StartContainer = bad }, "poststop"},
		"poststart":       {func(s *sandbox) { s.spec.Hooks.Poststart = bad }, "poststop"},
		"command": {func(s *sandbox) {
			s.spec.Hooks.CreateRuntime = []specs.Hook{{Path: "/bin/true"}}
			s.spec.Process.Args = []string{"/nope"}
		}, "poststop"},
		"mount": {func(s *sandbox) {
			s.spec.Hooks.CreateRuntime = []specs.Hook{{Path: "/bin/true"}}
			s.spec.Mounts = append(s.spec.Mounts, specs.Mount{Destination: "/x", Type: "nofs", Source: "x"})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSandbox(t)
			s.must(os.Symlink("busybox", s.path("bin/false")))
			s.spec.Process.Args = []string{"sleep", "100"}
			s.spec.Hooks = &specs.Hooks{Poststop: s.note("poststop")}
			c.set(s)
			if r := s.runtime(runtimeCall{Verb: "run", Detach: true}); r.err == nil {
				t.Errorf("%+v", r)
			}
			data, _ := os.ReadFile(filepath.Join(s.dir, "notes"))
			got, state, _ := strings.Cut(string(data), " ")
			if got != c.want || got != "" && !strings.Contains(state, `"status":"stopped"`) {
				t.Errorf("got %q, want %q", data, c.want)
			}
			s.wantNothingLeft()
		})
	}
}

// A startContainer hook is a program of the image: with the runtime's rights it
// could do to the host what it likes.
func TestStartContainerHooksHaveTheRightsOfTheProcess(t *testing.T) {
	s := newSandbox(t)
	s.must(os.Chmod(s.path("tmp"), 0o777))
	s.spec.Process.User = specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{5}}
	s.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
	s.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	rights := `id; grep -E "^(Cap|NoNew|Seccomp:)" /proc/self/status; cat /proc/self/cgroup; ulimit -n; pwd`
	s.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{
		Path: "/bin/sh", Args: []string{"sh", "-c", "exec > /tmp/hook; " + rights + "; echo $HOME; ls /proc/self/fd > /tmp/open"}, Env: []string{"PATH=/bin"},
	}}}
	check := func(verb, process string) {
		hook, err := os.ReadFile(s.path("tmp/hook"))
		s.must(err)
		if strings.TrimSpace(string(hook)) != process {
			t.Errorf("%s: the hook is\n%s\nthe process\n%s", verb, hook, process)
		}
		open, err := os.ReadFile(s.path("tmp/open"))
		s.must(err)
		if string(open) != "0\n1\n2\n3\n" { // ls opens one itself
			t.Errorf("%s: the hook has open\n%s", verb, open)
		}
	}
	s.create.PreserveFDs, s.extra = 1, []*os.File{os.Stdin}
	process := s.sh(rights + "; echo")
	check("run", process)
	s.must(os.Remove(s.path("tmp/hook")))
	for _, verb := range []string{"create", "start"} {
		if r := s.runtime(runtimeCall{Verb: verb}); r.status != 0 {
			t.Fatal(r.stderr)
		}
	}
	check("start", process)
}

// The process runs them itself, so start has to be told, and what they leave behind
// is still the container's.
func TestStartIsToldWhatHooksDid(t *testing.T) {
	shell := func(script string) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}}
	}
	second := 1
	for name, c := range map[string]struct {
		hook specs.Hook
		text string
	}{
		"failed":       {shell("cat; echo; echo why >&2; exit 3"), `error running startContainer hook #1: /bin/sh: exit status 3, output: {"ociVersion":`},
		"says nothing": {shell("exit 2"), "error running startContainer hook #1: /bin/sh: exit status 2, output: "},
		"says much":    {shell("seq 100000; exit 3"), "output: 1\n2\n3\n"},
		"killed":       {shell("kill -9 $$"), "error running startContainer hook #1: /bin/sh: exit status 137, output: "},
		"not there":    {specs.Hook{Path: "/nope"}, "error running startContainer hook #1: /nope: exit status 127, output: exec /nope: No such file or directory"},
		"too long":     {specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "30"}, Timeout: &second}, "error running startContainer hook #1: /bin/sleep: timed out after 1 s"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verbs := range [][]string{{"create", "start"}, {"run"}} {
				s := newSandbox(t)
				s.must(os.Symlink("busybox", s.path("bin/seq")))
				s.spec.Process.Args = []string{"touch", "/started"}
				s.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{shell("sleep 1000 & exit 0"), c.hook, shell("touch /third")}}
				var r result
				for _, verb := range verbs {
					r = s.runtime(runtimeCall{Verb: verb})
				}
				if r.err == nil || !strings.Contains(r.err.Error(), c.text) || len(r.err.Error()) > nsenter.MaxOutput+200 {
					t.Errorf("%q: %+v, %q", verbs, r, r.stderr)
				}
				for _, file := range []string{"third", "started"} {
					if _, err := os.Stat(s.path(file)); err == nil {
						t.Errorf("%q: %s was made after all", verbs, file)
					}
				}
				if verbs[0] == "create" {
					c, err := Open(s.create.Root, s.create.ID)
					s.must(err)
					s.must(Delete(t.Context(), c.Root, c.ID, true))
				}
				s.wantNothingLeft()
			}
		})
	}
}

// What runs before it may kill the process, or whoever starts it.
func TestProcessThatDiesOfItsHooks(t *testing.T) {
	s := newSandbox(t)
	s.spec.Process.Args = []string{"sleep", "100"}
	s.spec.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}}}
	if r := s.runtime(runtimeCall{Verb: "create"}); r.status != 0 {
		t.Fatal(r.stderr)
	}
	c, err := Open(s.create.Root, s.create.ID)
	s.must(err)
	done := make(chan result, 1)
	go func() { done <- s.runtime(runtimeCall{Verb: "start"}) }()
	for end, pids := time.Now().Add(20*time.Second), 0; pids < 2; { // the hook is there
		list, err := c.cgroup().Pids(false)
		s.must(err)
		if pids = len(list); time.Now().After(end) {
			t.Fatalf("no hook after 20 s, but %v", list)
		}
	}
	s.must(c.killInit())
	if r := <-done; r.err == nil || !strings.Contains(r.err.Error(), "ended before its startContainer hooks were done") {
		t.Errorf("%+v", r)
	}
	s.must(Delete(t.Context(), c.Root, c.ID, true))
	s.wantNothingLeft()
}

func TestHookTimesOut(t *testing.T) {
	second := 1
	slow := []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "30"}, Timeout: &second}}
	for name, hooks := range map[string]*specs.Hooks{"createRuntime": {CreateRuntime: slow}, "createContainer": {CreateContainer: slow}, "startContainer": {StartContainer: slow}} {
		s := newSandbox(t)
		s.spec.Hooks = hooks
		start := time.Now()
		r := s.run("true")
		if errdefs.KindOf(r.err) != errdefs.DeadlineExceeded || time.Since(start) > 10*time.Second {
			t.Errorf("%s after %v: %+v", name, time.Since(start), r)
		}
		s.wantNothingLeft()
	}
}

func TestHookWithoutReadingItsInput(t *testing.T) {
	state := &specs.State{Annotations: map[string]string{"long": strings.Repeat("x", 1<<20)}}
	if err := RunHooks(context.Background(), "prestart", []specs.Hook{{Path: "/bin/true"}}, state); err != nil {
		t.Error(err)
	}
}
