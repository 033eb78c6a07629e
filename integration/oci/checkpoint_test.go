package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/leftovers"
)

// saved is a bundle of one test with its runtime: a container that is saved
// and restored.
type saved struct {
	t       *testing.T
	runtime bundle.Runtime
	dir, id string
	images  string
	options []string // of the runtime, before the verb
}

// checkpointed skips where criu does not work, with criu's own reason.
func checkpointed(t *testing.T, change func(*specs.Spec)) *saved {
	t.Helper()
	ocirun, _, dir := runtimes(t)
	path, err := exec.LookPath("criu")
	if err != nil {
		t.Skip("criu is not installed")
	}
	if out, err := exec.Command(path, "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work on this machine: %v: %s", err, strings.TrimSpace(string(out)))
	}
	c := &saved{t: t, runtime: ocirun, id: "criu" + filepath.Base(dir), dir: filepath.Join(dir, "bundle"), images: filepath.Join(dir, "images")}
	spec := bundle.Plain(c.id)
	change(spec)
	if err := bundle.Make(c.dir, spec); err != nil {
		t.Fatal(err)
	}
	before, err := leftovers.Look()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = c.ask("delete", "--force", c.id)
		if err := leftovers.Await(deadline(), leftovers.Since(before, c.runtime.Root, filepath.Join(c.dir, "rootfs"))); err != nil {
			t.Error(err)
		}
	})
	return c
}

// criuLimit bounds one call: criu takes seconds in a virtual machine that is
// emulated.
const criuLimit = 3 * time.Minute

// ask runs a verb that leaves nobody behind.
func (c *saved) ask(args ...string) (bundle.Output, error) {
	ctx, cancel := context.WithTimeout(context.Background(), criuLimit) // the test's own has ended in clean-ups
	defer cancel()
	cmd := c.runtime.Command(ctx, append(c.options, args...)...)
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, &stdout, &stderr
	err := cmd.Run()
	out := bundle.Output{Status: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	var status *exec.ExitError
	if errors.As(err, &status) && out.Status >= 0 {
		err = nil
	}
	return out, err
}

// call wants status 0.
func (c *saved) call(args ...string) string {
	c.t.Helper()
	out, err := c.ask(args...)
	if err != nil || out.Status != 0 {
		c.t.Fatalf("%v: status %d, %v: %s%s", args, out.Status, err, out.Stdout, out.Stderr)
	}
	return out.Stdout
}

// start runs a verb that leaves a container behind, which gets stdout; nil is
// /dev/null.
func (c *saved) start(stdout *os.File, args ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), criuLimit)
	defer cancel()
	log := filepath.Join(c.dir, "log")
	cmd := c.runtime.Command(ctx, append([]string{"--log", log}, append(c.options, args...)...)...)
	cmd.Dir = c.dir
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(log) // what there is
		c.t.Fatalf("%v: %v: %s", args, err, text)
	}
}

func (c *saved) run(stdout *os.File, more ...string) {
	c.t.Helper()
	c.start(stdout, append(append([]string{"run", "--detach"}, more...), c.id)...)
}

func (c *saved) checkpoint(more ...string) {
	c.t.Helper()
	c.call(append(append([]string{"checkpoint", "--image-path", c.images}, more...), c.id)...)
}

func (c *saved) restore(stdout *os.File, more ...string) {
	c.t.Helper()
	c.start(stdout, append(append([]string{"restore", "--detach", "--image-path", c.images}, more...), c.id)...)
}

// gone wants no container, and no cgroup of it.
func (c *saved) gone() {
	c.t.Helper()
	if out, err := c.ask("state", c.id); err != nil || out.Status == 0 {
		c.t.Errorf("the container is there: %v %s", err, out.Stdout)
	}
}

func (c *saved) wantRunning() {
	c.t.Helper()
	if text := c.call("state", c.id); !strings.Contains(text, `"running"`) {
		c.t.Fatalf("state: %s", text)
	}
}

// counter counts to a file of a bind, in a file system and with a memory that
// only it knows.
func counter(spec *specs.Spec, dir string) {
	spec.Process.Args = []string{"sh", "-c", "i=0; while true; do i=$((i+1)); echo $i > /shared/new; mv /shared/new /shared/count; echo $i > /memory/last; sleep 0.05; done"}
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/shared", Type: "bind", Source: dir, Options: []string{"rbind", "rw"}},
		specs.Mount{Destination: "/memory", Type: "tmpfs", Source: "tmpfs"})
	spec.Root.Readonly = false
}

// count reads the counter once it is at least at.
func count(t *testing.T, dir string, at int) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "count"))
		if errors.Is(err, os.ErrNotExist) || len(text) == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if n >= at {
			return n
		}
	}
	t.Fatalf("the counter does not reach %d", at)
	return 0
}

// TestCheckpointedCounterGoesOn: with masks, devices, binds and a tmpfs, as engines make
// them. Every verb works on the restored container.
func TestCheckpointedCounterGoesOn(t *testing.T) {
	shared, hooked := t.TempDir(), filepath.Join(t.TempDir(), "hooked")
	c := checkpointed(t, func(spec *specs.Spec) {
		counter(spec, shared)
		limit := int64(256 << 20)
		spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >> " + hooked}}}}
	})
	c.run(nil)
	count(t, shared, 5)
	c.checkpoint()
	c.gone()
	before := count(t, shared, 5)
	// A root without the mount points, as another machine's may be.
	for _, dir := range []string{"shared", "memory"} {
		if err := os.Remove(filepath.Join(c.dir, "rootfs", dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(hooked); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(c.dir, "pid")
	c.restore(nil, "--pid-file", pidFile)
	c.wantRunning()
	if now := count(t, shared, before+1); now > before+2000 {
		t.Errorf("the counter went from %d to %d", before, now)
	}
	if text, err := os.ReadFile(hooked); err != nil || !strings.Contains(string(text), `"id":"`+c.id+`"`) {
		t.Errorf("createRuntime hook at restore: %v %s", err, text)
	}
	if pid, err := os.ReadFile(pidFile); err != nil || !strings.Contains(c.call("state", c.id), `"pid": `+string(pid)) {
		t.Errorf("pid file: %v %s", err, pid)
	}
	if last, err := strconv.Atoi(strings.TrimSpace(c.call("exec", c.id, "cat", "/memory/last"))); err != nil || last < before {
		t.Errorf("exec: %v %d", err, last)
	}
	c.call("pause", c.id)
	c.call("resume", c.id)
	c.call("update", "--memory", "134217728", "--memory-swap", "134217728", c.id)
	// Once more, from the restored one, which goes on.
	c.images += "2"
	c.checkpoint("--leave-running", "--work-path", filepath.Join(c.dir, "work"))
	c.wantRunning()
	count(t, shared, count(t, shared, 0)+1)
	c.call("kill", c.id, "KILL")
	awaitStopped(t, c.runtime, c.dir, c.id)
	c.call("delete", c.id)
}

// TestCheckpointAfterPreDump: a second image with what changed since.
func TestCheckpointAfterPreDump(t *testing.T) {
	shared := t.TempDir()
	c := checkpointed(t, func(spec *specs.Spec) { counter(spec, shared) })
	c.run(nil)
	count(t, shared, 3)
	first := filepath.Join(filepath.Dir(c.images), "first")
	out, err := c.ask("checkpoint", "--pre-dump", "--image-path", first, c.id)
	if err != nil {
		t.Fatal(err)
	}
	if out.Status != 0 && strings.Contains(out.Stderr, "criu is missing features: [MemTrack]") {
		t.Skip("this kernel does not track memory")
	}
	if out.Status != 0 {
		t.Fatal(out.Stderr)
	}
	c.wantRunning()
	c.checkpoint("--parent-path", "../first")
	before := count(t, shared, 3)
	c.restore(nil)
	count(t, shared, before+1)
}

// TestCheckpointConnectsPipesAnew: the output's pipe is the one of the restore.
func TestCheckpointConnectsPipesAnew(t *testing.T) {
	c := checkpointed(t, func(spec *specs.Spec) {
		spec.Process.Args = []string{"sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done"}
	})
	read := func(call func(*os.File), enough func(int) bool) (last int) {
		t.Helper()
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		call(writer)
		writer.Close()
		if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			if last, err = strconv.Atoi(lines.Text()); err != nil {
				t.Fatal(err)
			}
			if enough(last) {
				if last > 5 {
					return last
				}
				c.checkpoint()
				enough = func(int) bool { return false } // to the end, which the checkpoint made
			}
		}
		return last
	}
	before := read(func(w *os.File) { c.run(w) }, func(n int) bool { return n == 3 })
	after := read(func(w *os.File) { c.restore(w) }, func(n int) bool { return n > 5 })
	if before < 3 || after <= before {
		t.Errorf("counted to %d, then to %d", before, after)
	}
}

// TestCheckpointedTerminalGoesOn: the restored terminal's master comes through
// the console socket.
func TestCheckpointedTerminalGoesOn(t *testing.T) {
	c := checkpointed(t, func(spec *specs.Spec) {
		spec.Process.Args = []string{"sh", "-c", "i=0; while read line; do i=$((i+1)); echo $i:$line; done"}
		spec.Process.Terminal = true
	})
	say := func(master *os.File, text, want string) {
		t.Helper()
		if _, err := io.WriteString(master, text+"\n"); err != nil {
			t.Fatal(err)
		}
		heard, buffer := "", make([]byte, 512)
		for !strings.Contains(heard, want) {
			if err := master.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, err := master.Read(buffer)
			if err != nil {
				t.Fatalf("heard %q: %v", heard, err)
			}
			heard += string(buffer[:n])
		}
	}
	socket := filepath.Join(c.dir, "console")
	master := c.console(socket, func() { c.run(nil, "--console-socket", socket) })
	say(master, "one", "1:one")
	c.checkpoint()
	master.Close()
	master = c.console(socket, func() { c.restore(nil, "--console-socket", socket) })
	defer master.Close()
	say(master, "two", "2:two")
}

// console takes the terminal's master that a verb sends.
func (c *saved) console(path string, verb func()) *os.File {
	c.t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		c.t.Fatal(err)
	}
	defer listener.Close()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	go func() {
		fd, err := acceptDescriptor(listener)
		done <- result{fd, err}
	}()
	verb()
	got := <-done
	if got.err != nil {
		c.t.Fatal(got.err)
	}
	if err := unix.SetNonblock(got.fd, true); err != nil {
		c.t.Fatal(err)
	}
	return os.NewFile(uintptr(got.fd), "master")
}

func acceptDescriptor(listener *net.UnixListener) (int, error) {
	if err := listener.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return -1, err
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	name, control := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, control)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d control messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors, %w", len(fds), err)
	}
	return fds[0], nil
}

// TestAttachedRestoreEndsWithTheProcess and gives its status.
func TestAttachedRestoreEndsWithTheProcess(t *testing.T) {
	shared := t.TempDir()
	c := checkpointed(t, func(spec *specs.Spec) {
		counter(spec, shared)
		spec.Process.Args = []string{"sh", "-c", "echo 1 > /shared/count; while ! test -e /shared/end; do sleep 0.05; done; exit 9"}
	})
	c.run(nil)
	count(t, shared, 1)
	c.checkpoint()
	if err := os.WriteFile(filepath.Join(shared, "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := c.ask("restore", "--image-path", c.images, c.id)
	if err != nil || out.Status != 9 {
		t.Errorf("status %d, %v: %s", out.Status, err, out.Stderr)
	}
	c.gone()
}

// TestRestoreThatFailsLeavesNothing: criu's reason is told.
func TestRestoreThatFailsLeavesNothing(t *testing.T) {
	shared := t.TempDir()
	c := checkpointed(t, func(spec *specs.Spec) { counter(spec, shared) })
	c.run(nil)
	count(t, shared, 1)
	c.checkpoint()
	if err := os.Truncate(filepath.Join(c.images, "pstree.img"), 7); err != nil {
		t.Fatal(err)
	}
	for name, images := range map[string]string{"restore.log": c.images, "opening the checkpoint": c.images + "none"} {
		out, err := c.ask("restore", "--image-path", images, c.id)
		if err != nil || out.Status != 1 || !strings.Contains(out.Stderr, name) {
			t.Errorf("restore of %s: status %d, %v: %s", images, out.Status, err, out.Stderr)
		}
		c.gone()
	}
	if _, err := os.Stat(filepath.Join(c.runtime.Root, c.id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the container's directory: %v", err)
	}
}

// TestCheckpointWithSystemd: the unit ends with the checkpoint, and a new one
// starts with the restore.
func TestCheckpointWithSystemd(t *testing.T) {
	systemdRuntimes(t)
	shared := t.TempDir()
	c := checkpointed(t, func(spec *specs.Spec) { counter(spec, shared) })
	c.options = []string{"--systemd-cgroup"}
	spec := bundle.Plain(c.id)
	counter(spec, shared)
	spec.Linux.CgroupsPath = "engtest-inner.slice:engtest:" + c.id
	if err := bundle.WriteConfig(c.dir, spec); err != nil {
		t.Fatal(err)
	}
	c.run(nil)
	count(t, shared, 3)
	c.checkpoint()
	unitGone(t, c.id)
	before := count(t, shared, 3)
	c.restore(nil)
	count(t, shared, before+1)
	if lines := strings.Join(properties(t, c.id), "\n"); !strings.Contains(lines, "ActiveState=active") {
		t.Errorf("the unit: %s", lines)
	}
	c.call("delete", "--force", c.id)
	unitGone(t, c.id)
}

// TestCheckpointRefusals: before criu is asked for anything.
func TestCheckpointRefusals(t *testing.T) {
	ocirun, references, dir := runtimes(t)
	id := "refuse" + filepath.Base(dir)
	spec := bundle.Plain(id)
	spec.Process.Args = []string{"sleep", "1000"}
	bundleDir := filepath.Join(dir, "bundle")
	if err := bundle.Make(bundleDir, spec); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"checkpoint"}, {"checkpoint", "none"}, {"restore"}, {"checkpoint", id},
	} {
		var texts []string
		for _, runtime := range append([]bundle.Runtime{ocirun}, references...) {
			if runtime.Name != "ocirun" && runtime.Name != "runc" {
				continue
			}
			out, err := callDetached(runtime, bundleDir, "create", id)
			if err != nil || out.Status != 0 {
				t.Fatalf("%s create: %v %d", runtime.Name, err, out.Status)
			}
			out, err = runtime.Call(bundleDir, args...)
			_, text, _ := strings.Cut(out.Stderr, "msg=")
			texts = append(texts, fmt.Sprint(out.Status, strings.ReplaceAll(strings.ReplaceAll(text, runtime.Path, "RUNTIME"), "runc:", "RUNTIME:")))
			if err != nil || out.Status != 1 {
				t.Errorf("%s %v: %v, status %d", runtime.Name, args, err, out.Status)
			}
			if out, err := runtime.Call(bundleDir, "delete", "--force", id); err != nil || out.Status != 0 {
				t.Fatalf("%s delete: %v %s", runtime.Name, err, out.Stderr)
			}
		}
		if len(texts) == 2 && texts[0] != texts[1] {
			t.Errorf("%v: ocirun %q, runc %q", args, texts[0], texts[1])
		}
	}
}
