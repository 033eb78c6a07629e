package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
)

// A runtime that is killed some way into its work. The number of milliseconds
// is read from a file, so that every start can have another.
const dyingRuntime = `#!/bin/sh
case " $* " in
*" run "*|*" create "*) ;;
*) exec %[1]s "$@" ;;
esac
%[1]s "$@" &
usleep $(cat %[2]s)
kill -9 $!
wait $!
`

// TestRuntimeDiesHalfWay: whatever the moment, the start either works or fails
// with an error, and the container can be removed. That nothing stays behind
// the stack checks at its end.
func TestRuntimeDiesHalfWay(t *testing.T) {
	cli := harness.AnyCLI(t)
	dir := harness.TempDir(t)
	runtime, delay := filepath.Join(dir, "runtime"), filepath.Join(dir, "delay")
	script := fmt.Sprintf(strings.ReplaceAll(dyingRuntime, "usleep", "/bin/busybox usleep"), harness.Binary("ocirun"), delay)
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	stack := harness.New(t, harness.Options{Bridge: true, Supervisor: []string{"--runtime", runtime}, Engined: []string{"--runtime", runtime}})
	cli = cli.At(t, stack.Host())
	failures := 0
	for microseconds := 0; microseconds < 24000; microseconds += 800 {
		if err := os.WriteFile(delay, fmt.Append(nil, microseconds), 0o644); err != nil {
			t.Fatal(err)
		}
		result := cli.Run(t, "run", "--rm", "--name", "victim", "busybox", "true")
		if result.Status != 0 {
			failures++
			if result.Status != 125 || result.Stderr == "" {
				t.Errorf("after %d µs: %+v", microseconds, result)
			}
		}
		if left := cli.Must(t, "ps", "-aq"); left != "" {
			cli.Must(t, "rm", "-f", "victim")
		}
	}
	if failures == 0 {
		t.Error("the runtime was never killed in time: this test tested nothing")
	}
}

// A runtime whose shim dies while it is at work, and that takes its time.
const lateRuntime = `#!/bin/sh
case " $* " in
*" run "*|*" create "*) ;;
*) exec %[1]s "$@" ;;
esac
echo $$ >%[2]s
kill -9 $PPID
read word <%[3]s
exec %[1]s "$@"
`

// TestRuntimeOutlivesItsShim: it is ended before its container is deleted, or it would
// make the container when that was done.
func TestRuntimeOutlivesItsShim(t *testing.T) {
	cli := harness.AnyCLI(t)
	dir := harness.TempDir(t)
	runtime, caller, gate := filepath.Join(dir, "runtime"), filepath.Join(dir, "pid"), filepath.Join(dir, "gate")
	script := fmt.Sprintf(lateRuntime, harness.Binary("ocirun"), caller, gate)
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	stack := harness.New(t, harness.Options{Supervisor: []string{"--runtime", runtime}, Engined: []string{"--runtime", runtime}})
	cli = cli.At(t, stack.Host())
	if result := cli.Run(t, "run", "--net=none", "--name", "victim", harness.Image, "true"); result.Status != 125 || result.Stderr == "" {
		t.Errorf("docker run: %+v", result)
	}
	cli.Must(t, "rm", "-f", "victim")
	text, err := os.ReadFile(caller)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the runtime was there after the container had been removed: killing it, %v", err)
	}
}
