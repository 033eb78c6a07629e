package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

// lines starts a command and returns a function that reads its next line.
func lines(t *testing.T, cmd *exec.Cmd) (next func() string, stdin io.WriteCloser) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(out)
	return func() string {
		t.Helper()
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatalf("%v: %q, %v", cmd.Args, line, err)
		}
		return strings.TrimSuffix(line, "\n")
	}, stdin
}

const answerTimeout = 20 * time.Second

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	t.Cleanup(cancel)
	return ctx
}

func TestLogsFollowWhatIsWritten(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		cli.Must(t, "run", "-d", "-i", "--name", "echoing", "busybox", "sh", "-c", "echo begin; while read line; do test $line = stop && break; echo got $line; done; echo end")
		attached := cli.Command(bounded(t), "attach", "--sig-proxy=false", "echoing")
		_, stdin := lines(t, attached)
		follow := cli.Command(bounded(t), "logs", "-f", "echoing")
		next, _ := lines(t, follow)
		if line := next(); line != "begin" {
			t.Fatalf("first line %q", line)
		}
		for i := range 20 {
			fmt.Fprintln(stdin, i)
			if line, want := next(), fmt.Sprintf("got %d", i); line != want {
				t.Fatalf("line %q, want %q", line, want)
			}
		}
		fmt.Fprintln(stdin, "stop") // the container ends, and with it the logs
		if line := next(); line != "end" {
			t.Errorf("last line %q", line)
		}
		if err := follow.Wait(); err != nil {
			t.Errorf("logs -f: %v", err)
		}
		_ = attached.Wait()
		cli.Must(t, "rm", "-f", "echoing")
	})
}

func TestAttachShowsOutputAndPassesTheStatus(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		cli.Must(t, "run", "-d", "-i", "--name", "asked", "busybox", "sh", "-c", "read line; echo answer $line; exit 9")
		attached := cli.Command(bounded(t), "attach", "asked")
		next, stdin := lines(t, attached)
		fmt.Fprintln(stdin, "42")
		if line := next(); line != "answer 42" {
			t.Errorf("%q", line)
		}
		_ = attached.Wait()
		if status := attached.ProcessState.ExitCode(); status != 9 {
			t.Errorf("status %d", status)
		}
		cli.Must(t, "rm", "asked")
	})
}

func TestEventsTellALife(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		began := time.Now().Format(time.RFC3339Nano)
		events := cli.Command(bounded(t), "events", "--filter", "type=container", "--filter", "container=told", "--format", "{{.Action}}", "--since", began)
		next, _ := lines(t, events)
		cli.Run(t, "run", "--name", "told", "busybox", "sh", "-c", "exit 3")
		cli.Must(t, "rm", "told")
		for _, want := range []string{"create", "attach", "start", "die", "destroy"} {
			if got := next(); got != want {
				t.Fatalf("event %q, want %q", got, want)
			}
		}
		_ = events.Process.Kill()
		_ = events.Wait()
	})
}

func TestConcurrentRunsKeepTheirOutputApart(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		results := make(chan error)
		const runs = 16
		for i := range runs {
			go func() {
				out, err := cli.Command(bounded(t), "run", "--rm", "busybox", "echo", fmt.Sprint("number ", i)).Output()
				if err == nil && string(out) != fmt.Sprintf("number %d\n", i) {
					err = fmt.Errorf("run %d printed %q", i, out)
				}
				results <- err
			}()
		}
		for range runs {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}
