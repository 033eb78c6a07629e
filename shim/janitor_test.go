package shim_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	proto "github.com/engined/engined/proto/shim"
)

// A test binary that is killed, or panics, cannot clean up. The janitor is this
// binary once more, in a session of its own: when its standard input ends it
// deletes the containers whose directories it was told and that are still there.
const janitorVariable = "SHIM_TEST_JANITOR"

// binaryVariable tells it where the shim was built.
const binaryVariable = "SHIM_TEST_BINARY_DIR"

var janitor io.Writer

func startJanitor() {
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), janitorVariable+"=1", binaryVariable+"="+filepath.Dir(shimPath))
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := command.StdinPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		panic(err)
	}
	janitor = pipe
}

func tellJanitor(dir string) error {
	_, err := fmt.Fprintln(janitor, dir)
	return err
}

func sweep(told io.Reader) {
	var dirs []string
	for lines := bufio.NewScanner(told); lines.Scan(); {
		dirs = append(dirs, lines.Text())
	}
	for _, dir := range dirs {
		var container proto.Container
		if proto.ReadFile(filepath.Join(dir, proto.ContainerFile), &container) != nil {
			continue // its test cleaned up
		}
		if deleteByShim(dir) != nil {
			_ = exec.Command(container.Runtime, append(container.RuntimeArgs, "delete", "--force", container.ID)...).Run()
		}
		_ = os.RemoveAll(filepath.Dir(dir))
	}
	_ = os.RemoveAll(os.Getenv(binaryVariable))
}

func deleteByShim(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := proto.Connect(ctx, filepath.Join(dir, proto.SocketFile))
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Delete(ctx)
}

const crashVariable = "SHIM_TEST_CRASH"

// TestCrash is what TestAKilledTestBinaryLeavesNothing kills.
func TestCrash(t *testing.T) {
	if os.Getenv(crashVariable) == "" {
		t.Skip("a part of TestAKilledTestBinaryLeavesNothing")
	}
	b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
	started := b.start(proto.Request{})
	fmt.Println("crash", b.command.Process.Pid, started.Pid, b.dir)
	<-b.ctx.Done()
}

func TestAKilledTestBinaryLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 || runtimePath == "" {
		t.Skip("needs root and a runtime")
	}
	command := exec.Command("/proc/self/exe", "-test.run=^TestCrash$")
	command.Env = append(os.Environ(), crashVariable+"=1")
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	var shim, init int
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "crash ") {
			_, err := fmt.Sscan(strings.TrimPrefix(lines.Text(), "crash "), &shim, &init, &dir)
			must(t, err)
		}
	}
	ends := []unix.PollFd{pidfd(t, shim), pidfd(t, init)}
	must(t, command.Process.Kill())
	_ = command.Wait()
	for i := range ends {
		if n, err := unix.Poll(ends[i:i+1], 30_000); n != 1 {
			t.Fatalf("shim and container go on: %v", err)
		}
	}
}

func pidfd(t *testing.T, pid int) unix.PollFd {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
}
