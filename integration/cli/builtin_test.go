package cli

import (
	"path/filepath"
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

func TestBuiltInClientWithImages(t *testing.T) {
	stack := harness.New(t, harness.Options{})
	cli := harness.BuiltIn().At(t, stack.Host())
	dir := t.TempDir()
	cli.Must(t, "run", "--name", "maker", "busybox", "sh", "-c", "echo made > /made")
	id := strings.TrimSpace(cli.Must(t, "commit", "-m", "with a file", "-c", "CMD [\"cat\", \"/made\"]", "maker", "made:1"))
	cli.Must(t, "tag", "made:1", "made:2")
	if out := cli.Must(t, "run", "--rm", "made:2"); out != "made\n" {
		t.Errorf("run of what was committed: %q", out)
	}
	if out := cli.Must(t, "history", "--no-trunc", "made:1"); !strings.Contains(out, id) || !strings.Contains(out, "with a file") {
		t.Errorf("history: %s", out)
	}
	cli.Must(t, "save", "-o", dir+"/saved.tar", "made:1", "made:2")
	if out := cli.Must(t, "rmi", "made:1", "made:2"); !strings.Contains(out, "Untagged: made:1\n") || !strings.Contains(out, "Deleted: "+id) {
		t.Errorf("rmi: %s", out)
	}
	if out := cli.Must(t, "load", "-i", dir+"/saved.tar"); out != "Loaded image: made:1\nLoaded image: made:2\n" {
		t.Errorf("load: %q", out)
	}
	cli.Must(t, "export", "-o", dir+"/tree.tar", "maker")
	cli.Must(t, "import", "-c", "CMD [\"cat\", \"/made\"]", dir+"/tree.tar", "tree")
	if out := cli.Must(t, "run", "--rm", "tree"); out != "made\n" {
		t.Errorf("run of what was exported and imported: %q", out)
	}
	if result := cli.Run(t, "save", "-o", dir+"/none.tar", "none"); result.Status != 1 || !strings.Contains(result.Stderr, "none") {
		t.Errorf("saving what is not there: %+v", result)
	}
	if left, err := filepath.Glob(dir + "/*none*"); err != nil || len(left) > 0 {
		t.Errorf("a save that failed left %v (%v)", left, err)
	}
	if out := cli.Must(t, "system", "df"); !strings.Contains(out, "Images") || !strings.Contains(out, "Containers") {
		t.Errorf("system df: %s", out)
	}
	if out := cli.Must(t, "image", "prune", "-a", "-f"); !strings.Contains(out, "Untagged: made:2") || strings.Contains(out, "busybox") {
		t.Errorf("image prune: %s", out)
	}
}
