package shim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

func TestUSR1DumpsTheStackToTheLog(t *testing.T) {
	b := newBox(t, []string{"/bin/sleep", "100"}, nil)
	b.start(proto.Request{})
	for n := 1; n <= 3; n++ {
		must(t, b.command.Process.Signal(unix.SIGUSR1))
		for {
			said, err := os.ReadFile(filepath.Join(b.dir, proto.LogFile))
			must(t, err)
			if strings.Count(string(said), "=== END goroutine stack dump ===") == n && strings.Contains(string(said), "shim.(*Shim).signalled") {
				break
			}
			must(t, b.ctx.Err())
		}
	}
}

// The runtime, and with it the container, begins with no signal ignored or
// blocked and without what was meant for the shim's own Go runtime.
func TestRuntimeInheritsNothingOfTheShims(t *testing.T) {
	if runtimePath == "" {
		t.Skip("needs runc, or SHIM_TEST_RUNTIME")
	}
	real, dir := runtimePath, t.TempDir()
	defer func() { runtimePath = real }()
	runtimePath = filepath.Join(dir, "runtime")
	script := fmt.Sprintf("#!/bin/sh\ncat /proc/self/environ /proc/self/status > %s/seen\nexec %s \"$@\"\n", dir, real)
	must(t, os.WriteFile(runtimePath, []byte(script), 0o700))
	b := newBox(t, sh("true"), nil)
	b.start(proto.Request{})
	b.exit(proto.Init)
	data, err := os.ReadFile(filepath.Join(dir, "seen"))
	must(t, err)
	seen := string(data)
	if strings.Contains(seen, "GOMAXPROCS") {
		t.Error("the runtime has the shim's GOMAXPROCS")
	}
	const none = "0000000000000000"
	for _, set := range []string{"SigBlk:\t" + none, "SigIgn:\t" + none} {
		if !strings.Contains(seen, set) {
			t.Errorf("no %q in what the runtime sees:\n%s", set, seen)
		}
	}
}

// Orphans of a container without a pid namespace of its own are given to the
// shim, which hears of their ends by SIGCHLD alone.
func TestStraysAreReaped(t *testing.T) {
	b := newBox(t, sh("for i in 1 2 3 4 5 6 7 8; do ( (sleep 0.0$i; echo > /orphan$i) & ) ; done; exec sleep 100"), func(spec map[string]any) {
		linux := spec["linux"].(map[string]any)
		var kept []any
		for _, one := range linux["namespaces"].([]any) {
			if one.(map[string]any)["type"] != "pid" {
				kept = append(kept, one)
			}
		}
		linux["namespaces"] = kept
	})
	started := b.start(proto.Request{})
	for b.ctx.Err() == nil {
		orphans, err := filepath.Glob(filepath.Join(b.bundle, "rootfs", "orphan*"))
		must(t, err)
		children := b.children()
		if len(orphans) == 8 && len(children) == 1 && children[0] == started.Pid {
			return
		}
	}
	t.Errorf("the shim's children are %v, expected %d alone", b.children(), started.Pid)
}
