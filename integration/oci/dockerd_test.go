package oci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
)

// TestDockerd has Debian's dockerd run containers with ocirun, both as its
// default runtime and when it is asked for. With runc it has to answer the same.
func TestDockerd(t *testing.T) {
	harness.NeedRoot(t)
	cli := harness.AnyCLI(t)
	ocirun := harness.Binary("ocirun")
	d := harness.NewDockerd(t, "--default-runtime", "ocirun", "--add-runtime", "ocirun="+ocirun)
	cli = cli.At(t, d.Host())
	root := filepath.Join(d.Dir, "x/runtime-runc/moby") // dockerd 20.10 gives it to all runtimes
	for name, e := range map[string]docked{
		"default": {run: []string{"run", "--network", "none"}, runtime: bundle.Runtime{Name: "ocirun", Path: ocirun, Root: root}},
		"added":   {run: []string{"run", "--network", "none", "--runtime", "ocirun"}, runtime: bundle.Runtime{Name: "ocirun", Path: ocirun, Root: root}},
		"runc":    {run: []string{"run", "--network", "none", "--runtime", "runc"}, runtime: bundle.Runtime{Name: "runc", Path: "runc", Root: root}},
	} {
		t.Run(name, func(t *testing.T) {
			e.t, e.cli = t, cli
			e.attached()
			if name != "added" { // the rest would go the same way
				e.detached()
			}
		})
	}
}

// docked is a dockerd with ocirun.
type docked struct {
	t       *testing.T
	cli     harness.CLI
	run     []string
	runtime bundle.Runtime // with the root that dockerd 20.10 gives to all runtimes
}

// want runs a docker command.
func (e docked) want(status int, stdout string, args ...string) {
	e.t.Helper()
	out := e.cli.Run(e.t, args...)
	if out.Status != status || stdout != "*" && out.Stdout != stdout {
		e.t.Errorf("docker %s: %+v; want %d, %q", strings.Join(args, " "), out, status, stdout)
	}
}

// started is want for a run.
func (e docked) started(status int, stdout string, args ...string) {
	e.t.Helper()
	e.want(status, stdout, append(append([]string(nil), e.run...), args...)...)
}

// attached are runs whose end is waited for.
func (e docked) attached() {
	e.started(3, "hi\n", "--rm", "busybox", "sh", "-c", "echo hi; exit 3")
	e.started(0, "/dev/pts/0\r\n", "--rm", "-t", "busybox", "tty")
	e.started(0, "in\n", "--rm", "-i", "busybox", "sh", "-c", "cat; echo in")
	e.started(0, "1000 1 67108864\nSeccomp:\t2\n", "--rm", "--user", "1000", "--memory", "64m", "--read-only", "--tmpfs", "/scratch", "--init", "busybox",
		"sh", "-c", "touch /scratch/x; echo $(id -u) $(ls /scratch | wc -l) $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null); grep Seccomp: /proc/self/status")
	e.started(0, "box\n", "--rm", "--hostname", "box", "--cap-add", "NET_ADMIN", "busybox", "hostname")
	e.started(127, "", "--rm", "busybox", "/no/such")
	e.started(126, "", "--rm", "busybox", "/etc/passwd")
}

// detached takes one container through its life.
func (e docked) detached() {
	const name = "lives"
	e.started(0, "*", "-d", "--name", name, "--memory", "64m", "busybox", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
	id := strings.TrimSpace(e.cli.Must(e.t, "inspect", "-f", "{{.Id}}", name))
	e.stateIs(id, "running")
	e.want(4, "in\n", "exec", name, "sh", "-c", "echo in; exit 4")
	e.want(0, "/dev/pts/0\r\n", "exec", "-t", name, "tty")
	e.want(0, "7 8 /tmp\n", "exec", "--user", "7:8", "-w", "/tmp", name, "sh", "-c", "echo $(id -u) $(id -g) $PWD")
	e.want(126, "*", "exec", name, "/no/such")
	e.want(126, "*", "exec", name, "/etc/passwd")
	e.want(0, name+"\n", "pause", name)
	e.stateIs(id, "paused")
	e.want(0, "true\n", "inspect", "-f", "{{.State.Paused}}", name)
	e.want(0, name+"\n", "unpause", name)
	e.want(0, name+"\n", "update", "--memory", "80m", "--memory-swap", "160m", "--pids-limit", "77", name)
	e.want(0, "83886080 77\n", "exec", name, "sh", "-c", "cd /sys/fs/cgroup; echo $(cat memory/memory.limit_in_bytes memory.max pids/pids.max pids.max 2>/dev/null)")
	e.want(0, "*", "top", name)
	e.want(0, "*", "stats", "--no-stream", name)
	e.want(0, name+"\n", "kill", "-s", "TERM", name)
	e.want(0, "5\n", "wait", name)
	e.want(0, name+"\n", "start", name)
	e.want(0, name+"\n", "restart", "-t", "0", name)
	e.want(0, name+"\n", "kill", name)
	e.want(0, "137\n", "wait", name)
	e.want(0, name+"\n", "rm", name)
	e.want(1, "*", "inspect", name)
	if _, err := os.Stat(filepath.Join(e.runtime.Root, id)); !os.IsNotExist(err) {
		e.t.Errorf("the runtime's directory of the container is still there: %v", err)
	}
}

// stateIs asks the runtime itself: the others do not understand its files.
func (e docked) stateIs(id, want string) {
	e.t.Helper()
	out, err := e.runtime.Call("/", "state", id)
	if err != nil || out.Status != 0 {
		e.t.Fatalf("the runtime does not know the container: %v %+v", err, out)
	}
	var state struct{ Status string }
	if err := json.Unmarshal([]byte(out.Stdout), &state); err != nil || state.Status != want {
		e.t.Errorf("state %q (%v), want %q", state.Status, err, want)
	}
}
