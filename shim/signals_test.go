package shim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
// blocked by the shim and without what was meant for the shim's own Go runtime.
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
	for _, name := range []string{"GOMAXPROCS", "NOTIFY_SOCKET"} {
		if strings.Contains(seen, name) {
			t.Errorf("the runtime has the shim's %s", name)
		}
	}
	own, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for _, set := range []string{"SigBlk", "SigIgn"} {
		// What we were started with is not the shim's doing.
		if more := signalSet(t, seen, set) &^ signalSet(t, string(own), set); more != 0 {
			t.Errorf("%s of the runtime has %#x more than ours", set, more)
		}
	}
}

// signalSet reads a mask of /proc/PID/status.
func signalSet(t *testing.T, status, name string) uint64 {
	t.Helper()
	_, rest, found := strings.Cut(status, name+":\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 16, 64)
	if err != nil || !found {
		t.Fatalf("no %s in %q: %v", name, status, err)
	}
	return mask
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
