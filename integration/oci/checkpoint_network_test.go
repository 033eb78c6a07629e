package oci

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestCheckpointedConnectionGoesOn: a server in a network namespace that is
// joined by path, as engines have it, and an established connection to it.
func TestCheckpointedConnectionGoesOn(t *testing.T) {
	namespace := makeNetwork(t)
	c := checkpointed(t, func(spec *specs.Spec) {
		spec.Process.Args = []string{"nc", "-l", "-p", "7777", "-e", "/bin/cat"}
		for i := range spec.Linux.Namespaces {
			if spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				spec.Linux.Namespaces[i].Path = namespace
			}
		}
	})
	c.run(nil)
	connection := dialInside(t, namespace, "127.0.0.1:7777")
	defer connection.Close()
	echo := func(text string) {
		t.Helper()
		if err := connection.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(connection, text); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, len(text))
		if _, err := io.ReadFull(connection, back); err != nil || string(back) != text {
			t.Fatalf("sent %q, got %q, %v", text, back, err)
		}
	}
	echo("before")
	// Without the option criu refuses, and the container goes on.
	out, err := c.ask("checkpoint", "--image-path", c.images, c.id)
	if err != nil || out.Status != 1 || !strings.Contains(out.Stderr, "--tcp-established") || !strings.Contains(out.Stderr, "dump.log") {
		t.Errorf("checkpoint without --tcp-established: status %d, %v: %s", out.Status, err, out.Stderr)
	}
	c.wantRunning()
	echo("still")
	images := c.images
	c.images += "-running"
	c.checkpoint("--leave-running", "--tcp-established")
	c.wantRunning()
	echo("running")
	c.images = images
	c.checkpoint("--tcp-established")
	c.gone()
	locked := rulesOf(t, namespace)
	c.restoreWithoutPages("--tcp-established")
	if rules := rulesOf(t, namespace); rules != locked {
		t.Errorf("after a failed restore the namespace's rules are\n%s, were\n%s", rules, locked)
	}
	for _, text := range []string{"after", "once more"} {
		c.restore(nil, "--tcp-established")
		c.wantRunning()
		echo(text)
		if rules := rulesOf(t, namespace); strings.Contains(rules, "CRIU") {
			t.Errorf("criu's lock is left:\n%s", rules)
		}
		c.images += "2"
		c.checkpoint("--tcp-established")
	}
}

// restoreWithoutPages wants a restore to fail when criu has already locked the
// network.
func (c *saved) restoreWithoutPages(more ...string) {
	c.t.Helper()
	pages := filepath.Join(c.images, "pages-1.img")
	must(c.t, os.Rename(pages, pages+".away"))
	out, err := c.ask(append(append([]string{"restore", "--detach", "--image-path", c.images}, more...), c.id)...)
	if err != nil || out.Status != 1 {
		c.t.Errorf("restore without pages: status %d, %v: %s", out.Status, err, out.Stderr)
	}
	c.gone()
	must(c.t, os.Rename(pages+".away", pages))
}

// rulesOf lists the rules for packets of a network namespace.
func rulesOf(t *testing.T, namespace string) string {
	t.Helper()
	var rules []string
	for _, program := range []string{"iptables", "ip6tables"} {
		out, err := exec.Command("ip", "netns", "exec", filepath.Base(namespace), program, "-S").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", program, err, out)
		}
		rules = append(rules, program+":\n"+string(out))
	}
	return strings.Join(rules, "")
}

// makeNetwork makes a network namespace with its loopback up.
func makeNetwork(t *testing.T) (path string) {
	t.Helper()
	name := fmt.Sprintf("engtest%d", os.Getpid())
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
		if args[0] == "netns" {
			t.Cleanup(func() {
				if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
	return "/run/netns/" + name
}

// dialInside connects from within a network namespace, once somebody listens.
func dialInside(t *testing.T, namespace, address string) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err != nil {
			done <- result{nil, err}
			return
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			conn, err := net.Dial("tcp", address)
			if err == nil || time.Now().After(end) {
				done <- result{conn, err}
				return
			}
		}
	}()
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	return got.conn
}
