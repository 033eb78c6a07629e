package cli

import (
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// The built-in client is what there is on a machine without a stock one.
func TestBuiltInClient(t *testing.T) {
	stack := harness.New(t, harness.Options{Bridge: true})
	cli := harness.BuiltIn().At(t, stack.Host())
	if result := cli.Run(t, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"); result.Status != 7 ||
		result.Stdout != "out\n" || result.Stderr != "err\n" {
		t.Errorf("run: %+v", result)
	}
	for _, test := range []struct {
		args   string
		status int
	}{{"no-such-command", 127}, {"/etc/not-executable", 126}} {
		if result := cli.Run(t, "run", "--rm", "busybox", test.args); result.Status != test.status || result.Stderr == "" {
			t.Errorf("run %s: %+v, want status %d and a message", test.args, result, test.status)
		}
	}
	cli.Must(t, "run", "-d", "--name", "web", "busybox", "sh", "-c", "echo hello; sleep 1000")
	if out := cli.Must(t, "ps"); !strings.Contains(out, "web") {
		t.Errorf("ps: %s", out)
	}
	if out := cli.Must(t, "exec", "web", "cat", "/proc/1/comm"); out != "sleep\n" {
		t.Errorf("exec: %q", out)
	}
	if out := cli.Must(t, "logs", "web"); out != "hello\n" {
		t.Errorf("logs: %q", out)
	}
	cli.Must(t, "rm", "-f", "web")
	if out := cli.Must(t, "images"); !strings.Contains(out, "busybox") {
		t.Errorf("images: %s", out)
	}
	if out := cli.Must(t, "version"); !strings.Contains(strings.ToLower(out), "version") {
		t.Errorf("version: %s", out)
	}
	if out := cli.Must(t, "ps", "-a"); strings.Contains(out, "web") {
		t.Errorf("after rm: %s", out)
	}
}
