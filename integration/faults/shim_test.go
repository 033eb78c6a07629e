package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

// A shim that dies where a file says: every shim is started by this script, and
// every container has one of its own. None is started ahead, when the file says
// where another is to die.
const dyingShim = `#!/bin/sh
test "$1" != --spare || exit 0
read ENGINED_FAILPOINT <%[1]s/point
export ENGINED_FAILPOINT ENGINED_FAILPOINT_TRACE=%[1]s/trace
exec %[1]s/shim "$@"
`

// mortal is a stack whose shims die where they are told to.
type mortal struct {
	cli harness.CLI
	dir string
}

func newMortal(t *testing.T) *mortal {
	t.Helper()
	m := &mortal{dir: harness.TempDir(t)}
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", filepath.Join(m.dir, "shim"), "./cmd/shim")
	build.Dir = harness.Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	script := filepath.Join(m.dir, "mortal")
	if err := os.WriteFile(script, fmt.Appendf(nil, dyingShim, m.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cli := harness.AnyCLI(t)
	m.dieAt(t, "")
	m.cli = cli.At(t, harness.New(t, harness.Options{Supervisor: []string{"--shim", script}}).Host())
	return m
}

func (m *mortal) dieAt(t *testing.T, point string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, "point"), []byte(point+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// work is a container's life: a start with a client attached, lines that fill
// several files, an exit. It returns how `docker run` ended.
func (m *mortal) work(t *testing.T) harness.Result {
	t.Helper()
	return m.cli.Run(t, "run", "--name", "victim", "--net=none", "--log-opt", "max-size=32k", "--log-opt", "max-file=3",
		"--log-opt", "compress=true", harness.Image, "sh", "-c", "seq 2000; sleep 0.5; seq 2001 4000") // gzip has its time
}

// trace returns the points that were passed, each once, in their order.
func (m *mortal) trace(t *testing.T) (points []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "trace"))
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range strings.Fields(string(data)) {
		if !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	return points
}

// TestShimDiesAtEachPoint: wherever it is, the container's end is known, what is
// left of its log reads as it was written, and it can be removed. That nothing
// stays behind the stack checks at its end.
func TestShimDiesAtEachPoint(t *testing.T) {
	m := newMortal(t)
	if result := m.work(t); result.Status != 0 {
		t.Fatalf("without a fault: %+v", result)
	}
	m.cli.Must(t, "rm", "victim")
	points := m.trace(t)
	for _, room := range []string{"shim-", "log-"} {
		if !slices.ContainsFunc(points, func(point string) bool { return strings.HasPrefix(point, room) }) {
			t.Fatalf("points passed: %q", points)
		}
	}
	for _, point := range points {
		m.dieAt(t, point)
		result := m.work(t)
		state := m.state(t)
		written := slices.Contains([]string{"shim-exit-written", "shim-exit-told", "shim-container-deleted"}, point)
		t.Logf("%s: docker run %d, %s", point, result.Status, state)
		switch {
		case written: // who died had said it
			if state != "exited 0 " {
				t.Errorf("%s: the container is %q", point, state)
			}
		case strings.HasPrefix(state, "created "): // it never ran, and docker run says why
			if result.Status != 125 || result.Stderr == "" {
				t.Errorf("%s: %+v", point, result)
			}
		case !strings.HasPrefix(state, "exited 137 ") || result.Status != 137 && result.Status != 125:
			t.Errorf("%s: the container is %q, docker run ended with %d", point, state, result.Status)
		}
		if strings.HasPrefix(state, "exited") {
			m.checkLog(t, point)
		}
		m.dieAt(t, "")
		m.cli.Must(t, "rm", "-f", "victim")
	}
}

// state returns status, exit code and error of a victim that has ended.
func (m *mortal) state(t *testing.T) string {
	t.Helper()
	const format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"
	state := m.cli.Must(t, "inspect", "-f", format, "victim")
	if strings.HasPrefix(state, "running") {
		m.cli.Must(t, "wait", "victim")
		state = m.cli.Must(t, "inspect", "-f", format, "victim")
	}
	return strings.TrimSuffix(state, "\n")
}

// checkLog: the oldest files may be rotated away, but from the first number on
// none is missing.
func (m *mortal) checkLog(t *testing.T, point string) {
	t.Helper()
	lines := strings.Fields(m.cli.Must(t, "logs", "victim"))
	for i := 1; i < len(lines); i++ {
		last, err := strconv.Atoi(lines[i-1])
		if err != nil || lines[i] != strconv.Itoa(last+1) {
			t.Errorf("%s: the log has %q after %q", point, lines[i], lines[i-1])
			return
		}
	}
	if strings.HasPrefix(point, "log-") && len(lines) == 0 {
		t.Errorf("%s: the log is empty", point)
	}
}

// TestManyShimsKilled: five times, or as often as ENGINED_TEST_SHIM_KILLS says,
// a shim dies under a container with several processes that logs.
func TestManyShimsKilled(t *testing.T) {
	times := 5
	if text := os.Getenv("ENGINED_TEST_SHIM_KILLS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		times = n
	}
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{})
	cli = cli.At(t, stack.Host())
	for i := range times {
		name := fmt.Sprint("orphan", i)
		id := strings.TrimSpace(cli.Must(t, "run", "-d", "--name", name, "--net=none", harness.Image,
			"sh", "-c", "for i in 1 2 3; do sleep 1000 & done; yes"))
		pids := awaitProcesses(t, cli, name, 4) // its shell may become the last of them
		if err := syscall.Kill(shimOf(t, id), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if status := cli.Must(t, "wait", name); status != "137\n" {
			t.Errorf("status %q", status)
		}
		for _, pid := range pids {
			awaitEnd(t, pid)
		}
		if why := cli.Must(t, "inspect", "-f", "{{.State.Error}}", name); !strings.Contains(why, "the shim died") {
			t.Errorf("the reason is %q", why)
		}
		cli.Must(t, "rm", name)
	}
}

// TestNoZombies: without a pid namespace the processes of a container whose shim dies are
// left to the supervisor, all of them once they are killed, and it reaps them.
func TestNoZombies(t *testing.T) {
	cli := harness.AnyCLI(t)
	cli = cli.At(t, harness.New(t, harness.Options{}).Host())
	id := strings.TrimSpace(cli.Must(t, "run", "-d", "--name", "victim", "--net=none", "--pid=host", harness.Image,
		"sh", "-c", "for i in 1 2 3; do setsid sleep 1000 & done; sleep 1000 & wait"))
	pids := awaitProcesses(t, cli, "victim", 5)
	if err := syscall.Kill(shimOf(t, id), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cli.Must(t, "wait", "victim")
	for _, pid := range pids {
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil {
			t.Errorf("there is still process %s", stat)
		}
	}
	cli.Must(t, "rm", "victim")
}

// awaitProcesses returns the pids of a container that comes to have so many.
func awaitProcesses(t *testing.T, cli harness.CLI, name string, many int) []string {
	t.Helper()
	for late := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // it tells nobody
		pids := strings.Fields(cli.Must(t, "top", name, "-o", "pid"))[1:]
		if len(pids) >= many {
			return pids
		}
		if time.Now().After(late) {
			t.Fatalf("processes %q, expected %d", pids, many)
		}
	}
}
