package faults

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/leftovers"
)

const (
	lines   = 400 // that the ticker prints, one every 10 ms
	patient = 60 * time.Second
)

var ticker = fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); usleep 10000; done; echo end; sleep 1000", lines)

// TestEnginedKilled and TestSupervisorKilled: a daemon dies while a container
// prints a line every 10 ms and somebody sits at a shell.
func TestEnginedKilled(t *testing.T) {
	killWhileWorking(t, func(s *harness.Stack) *harness.Daemon { return s.Engined }, (*harness.Stack).StartEngined)
}

func TestSupervisorKilled(t *testing.T) {
	killWhileWorking(t, func(s *harness.Stack) *harness.Daemon { return s.Supervisor }, (*harness.Stack).StartSupervisor)
}

func TestBothKilled(t *testing.T) {
	killWhileWorking(t, func(s *harness.Stack) *harness.Daemon { s.Engined.Kill(); return s.Supervisor },
		func(s *harness.Stack) { s.StartSupervisor(); s.StartEngined() })
}

func killWhileWorking(t *testing.T, victim func(*harness.Stack) *harness.Daemon, again func(*harness.Stack)) {
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{Bridge: true})
	cli = cli.At(t, stack.Host())
	cli.Must(t, "run", "-d", "--name", "ticker", "busybox", "sh", "-c", ticker)
	shell := harness.OpenTerminal(t, cli.Command(context.Background(), "run", "-it", "--name", "shell", "busybox"), 24, 80)
	shell.Expect("# ")
	shell.Say("kept=alive\n")
	shell.Expect("# ")
	follow(t, cli, "line 50")

	victim(stack).Kill()
	shell.Say("sleep 1; echo still $kept\n")
	shell.Expect("still alive")
	again(stack)

	if names := cli.Must(t, "ps", "--format", "{{.Names}}"); !strings.Contains(names, "ticker\n") || !strings.Contains(names, "shell\n") {
		t.Errorf("running afterwards: %q", names)
	}
	follow(t, cli, "end")
	everyLineOnce(t, cli.Must(t, "logs", "ticker"))
	if out := cli.Must(t, "exec", "ticker", "echo", "reached"); out != "reached\n" {
		t.Errorf("exec afterwards: %q", out)
	}
	shell.Say("echo and $kept; exit 5\n")
	shell.Expect("and alive")
	if status := cli.Must(t, "wait", "shell"); status != "5\n" {
		t.Errorf("wait says %q of a shell that ended with 5", status)
	}
	cli.Must(t, "stop", "-t", "0", "ticker")
	cli.Must(t, "rm", "ticker", "shell")
}

// follow reads the ticker's log until a line is there.
func follow(t *testing.T, cli harness.CLI, until string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	cmd := cli.Command(ctx, "logs", "-f", "ticker")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := false
	for scanner := bufio.NewScanner(out); !found && scanner.Scan(); {
		found = scanner.Text() == until
	}
	cancel()
	_ = cmd.Wait()
	if !found {
		t.Fatalf("%q does not come", until)
	}
}

func everyLineOnce(t *testing.T, log string) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
	for i := range lines {
		want := fmt.Sprint("line ", i)
		if i >= len(got) {
			t.Fatalf("the log ends after %d lines", len(got))
		}
		if got[i] != want {
			t.Fatalf("line %d of the log is %q", i, got[i])
		}
	}
	if rest := got[lines:]; len(rest) != 1 || rest[0] != "end" {
		t.Errorf("after the last line: %q", rest)
	}
}

// TestExitWhileNobodyLooks: a container ends while both daemons are gone; its
// status is known afterwards, and what it wrote.
func TestExitWhileNobodyLooks(t *testing.T) {
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{Bridge: true})
	cli = cli.At(t, stack.Host())
	cli.Must(t, "run", "-d", "--name", "quiet", "busybox", "sh", "-c", "until test -e /go; do usleep 1000; done; echo last words; exit 9")
	pid := strings.TrimSpace(cli.Must(t, "inspect", "-f", "{{.State.Pid}}", "quiet"))
	stack.Engined.Kill()
	stack.Supervisor.Kill()
	if out, err := exec.Command("touch", filepath.Join("/proc", pid, "root/go")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	awaitEnd(t, pid)
	stack.StartSupervisor()
	stack.StartEngined()
	if status := cli.Must(t, "wait", "quiet"); status != "9\n" {
		t.Errorf("status %q", status)
	}
	if log := cli.Must(t, "logs", "quiet"); log != "last words\n" {
		t.Errorf("log %q", log)
	}
	cli.Must(t, "rm", "quiet")
}

// TestShimKilled: without its shim a container cannot go on; its end is told as
// such, and nobody else's.
func TestShimKilled(t *testing.T) {
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{Bridge: true})
	cli = cli.At(t, stack.Host())
	id := strings.TrimSpace(cli.Must(t, "run", "-d", "--name", "orphan", "busybox", "sh", "-c", "sleep 1000 & sleep 1000"))
	cli.Must(t, "run", "-d", "--name", "other", "busybox", "sleep", "1000")
	pid := strings.TrimSpace(cli.Must(t, "inspect", "-f", "{{.State.Pid}}", "orphan"))
	if err := syscall.Kill(shimOf(t, id), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := cli.Must(t, "wait", "orphan"); status != "137\n" {
		t.Errorf("status %q", status)
	}
	awaitEnd(t, pid)
	if state := cli.Must(t, "inspect", "-f", "{{.State.Status}} {{.State.Running}}", "other"); state != "running true\n" {
		t.Errorf("the other container is %q", state)
	}
	if out := cli.Must(t, "start", "orphan"); out != "orphan\n" {
		t.Errorf("started again: %q", out)
	}
	cli.Must(t, "rm", "-f", "orphan", "other")
}

// shimOf finds the shim of a container: its command line names the id.
func shimOf(t *testing.T, id string) int {
	t.Helper()
	all, err := leftovers.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for pid, proc := range all {
		if filepath.Base(proc.Exe) == "shim" && strings.Contains(proc.Command, id) {
			return pid
		}
	}
	t.Fatalf("no shim for %s", id)
	return 0
}

// awaitEnd waits until a process that is not our child is gone.
func awaitEnd(t *testing.T, pid string) {
	t.Helper()
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if proc, err := leftovers.ReadProc(number); err != nil || proc.State == 'Z' {
			return
		}
	}
	t.Fatalf("pid %s does not end", pid)
}
