package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
	"github.com/engined/engined/integration/harness"
	"github.com/engined/engined/integration/rootfs"
)

// engine calls an engine's command line.
type engine struct {
	t    *testing.T
	argv []string
}

// do runs it and wants a status and, if it is not empty, that output.
func (e engine) do(status int, output string, args ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bundle.Patience(time.Minute))
	defer cancel()
	argv := append(append([]string(nil), e.argv...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, bundle.Patience(time.Second)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		e.t.Fatalf("%q: %v", args, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != status || output != "" && stdout.String() != output {
		e.t.Errorf("%q: status %d, want %d; output %q, want %q\n%s", args, got, status, stdout.String(), output, stderr.String())
	}
}

// terminal runs it on a terminal of its own and wants that output.
func (e engine) terminal(output string, args ...string) {
	e.t.Helper()
	argv := append(append([]string(nil), e.argv...), args...)
	term := harness.OpenTerminal(e.t, exec.Command(argv[0], argv[1:]...), 24, 80)
	term.Expect(output)
	if status := term.Status(); status != 0 {
		e.t.Errorf("%q: status %d", args, status)
	}
}

// engineDir returns a directory with a root file system that every user may
// enter.
func engineDir(t *testing.T, program string) (dir, root string) {
	t.Helper()
	harness.NeedRoot(t)
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
	dir = harness.TempDir(t)
	root = filepath.Join(dir, "rootfs")
	for _, step := range []func() error{
		func() error { return os.Chmod(dir, 0o755) },
		func() error { return os.Mkdir(root, 0o755) },
		func() error { return rootfs.Unpack(root) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return dir, root
}

func TestPodman(t *testing.T) {
	dir, root := engineDir(t, "podman")
	podman := engine{t, []string{"podman", "--root", dir + "/storage", "--runroot", dir + "/run", "--tmpdir", dir + "/tmp",
		"--runtime", harness.Binary("ocirun"), "--runtime-flag", "root=" + dir + "/ocirun", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--storage-driver", "vfs"}}
	name := filepath.Base(dir)
	// Limits of the tests' own: podman asks for more than they may have.
	options := func(list ...string) []string {
		return append([]string{"run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}, list...)
	}
	podman.do(3, "hi\n0\n", options("--rm", "--rootfs", root, "/bin/sh", "-c", "echo hi; id -u; exit 3")...)
	podman.do(0, "1000\nSeccomp:\t2\n", options("--rm", "--user", "1000", "--read-only", "--tmpfs", "/scratch", "--rootfs", root, "/bin/sh", "-c", "id -u; touch /scratch/x; grep Seccomp: /proc/self/status")...)
	podman.do(0, "0 200000 1000\n", options("--rm", "--uidmap", "0:200000:1000", "--gidmap", "0:200000:1000", "--rootfs", root, "/bin/sh", "-c", "echo $(cat /proc/self/uid_map)")...)
	podman.do(0, "", options("-d", "--name", name, "--rootfs", root, "/bin/sleep", "1000")...)
	t.Cleanup(func() { podman.do(0, "", "rm", "-f", "-i", "-t", "0", name) })
	podman.do(4, "in\n", "exec", name, "/bin/sh", "-c", "echo in; exit 4")
	podman.do(0, "/dev/pts/0\r\n", "exec", "-t", name, "tty")
	podman.do(127, "", "exec", name, "/no/such")
	podman.do(126, "", "exec", name, "/etc/passwd")
	podman.do(0, "", "update", "--memory", "80m", name)
	podman.do(0, "83886080\n", "exec", name, "/bin/sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; true")
	podman.do(0, "", "pause", name)
	podman.do(0, "paused\n", "inspect", "-f", "{{.State.Status}}", name)
	podman.do(0, "", "unpause", name)
	podman.do(0, "sleep\n", options("--rm", "--pid", "container:"+name, "--rootfs", root, "/bin/sh", "-c", "cat /proc/1/comm")...)
	podman.do(0, "", "kill", name)
	podman.do(0, "137\n", "wait", name)
	podman.do(0, "", "rm", "-f", "-t", "0", name)
	podman.do(1, "", "container", "exists", name)
}

func TestContainerd(t *testing.T) {
	dir, root := engineDir(t, "containerd")
	socket := startContainerd(t, dir)
	ctr := engine{t, []string{"ctr", "-a", socket}}
	run := func(how string, list ...string) []string {
		argv := append([]string{"run"}, strings.Fields(how)...)
		return append(append(argv, "--runc-binary", harness.Binary("ocirun"), "--rootfs", root), list...)
	}
	name := filepath.Base(dir)
	ctr.do(3, "hi\n0\n", run("--rm", name+"-first", "/bin/sh", "-c", "echo hi; id -u; exit 3")...)
	ctr.terminal("/dev/pts/0\r", run("--rm -t", name+"-tty", "/bin/tty")...)
	ctr.do(0, "", run("-d --memory-limit 67108864", name, "/bin/sleep", "1000")...)
	ctr.do(4, "in\n", "task", "exec", "--exec-id", "one", name, "/bin/sh", "-c", "echo in; exit 4")
	ctr.do(1, "", "task", "exec", "--exec-id", "two", name, "/no/such")
	ctr.terminal("/dev/pts/0\r", "task", "exec", "-t", "--exec-id", "three", name, "/bin/tty")
	limit, _ := os.ReadFile("/sys/fs/cgroup/memory/default/" + name + "/memory.limit_in_bytes")
	if v2, _ := os.ReadFile("/sys/fs/cgroup/default/" + name + "/memory.max"); string(limit)+string(v2) != "67108864\n" {
		t.Errorf("its memory limit is %q%q", limit, v2)
	}
	ctr.do(0, "", "task", "pause", name)
	ctr.do(0, "", "task", "resume", name)
	ctr.do(0, "", "task", "metrics", name)
	ctr.do(0, "", "task", "kill", "-s", "KILL", name)
	ctr.do(0, "", "task", "delete", "--force", name)
	ctr.do(0, "", "container", "delete", name)
}

// startContainerd starts a private one and returns its socket.
func startContainerd(t *testing.T, dir string) string {
	t.Helper()
	socket, config := filepath.Join(dir, "c.sock"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		dir+"/root", dir+"/state", socket, socket+".ttrpc")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait(), log.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("containerd says:\n%s", text)
		}
	})
	for end := deadline(); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		}
	}
	t.Fatal("containerd does not answer")
	return ""
}
