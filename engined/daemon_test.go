package engined

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

func TestALockIsRefusedWhileItsHolderLivesAndNotAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "pid")
	held, err := take(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(path); errdefs.KindOf(err) != errdefs.Conflict || !strings.Contains(err.Error(), "is still running") {
		t.Errorf("a second one: %v", err)
	}
	if err := held.drop(); err != nil {
		t.Fatal(err)
	}
	// What a dead process left, and whose pid may be another's by now.
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := take(path)
	if err != nil {
		t.Fatalf("a stale file: %v", err)
	}
	if content, _ := os.ReadFile(path); string(content) == "1" {
		t.Error("the pid was not replaced")
	}
	if err := again.drop(); err != nil {
		t.Fatal(err)
	}
}

// A child that is forked when its parent is killed shares the lock until its exec.
func TestALockOfADeadHoldersChildIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	held, err := take(path)
	if err == nil {
		err = rewrite(held.file, strconv.Itoa(dead.Process.Pid))
	}
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "0.3")
	child.ExtraFiles = []*os.File{held.file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	held.file.Close()
	again, err := take(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.drop(); err != nil {
		t.Fatal(err)
	}
}

func TestASocketThatSomebodyAnswersIsNotTaken(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("gives the socket to root")
	}
	path := filepath.Join(t.TempDir(), "s")
	first, err := listenUnix(path, "")
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.Stat(path)
	if err != nil || stat.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", stat.Mode(), err)
	}
	if _, err := listenUnix(path, ""); errdefs.KindOf(err) != errdefs.Conflict {
		t.Errorf("a second one: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as after kill -9
	first.Close()
	again, err := listenUnix(path, "")
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, ""); errdefs.KindOf(err) != errdefs.Conflict {
		t.Errorf("a file that is no socket: %v", err)
	}
	if _, err := listenUnix(path+"2", "no-such-group"); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestStacksAreMarked(t *testing.T) {
	var out strings.Builder
	dumpStacks(&out)
	if !strings.HasPrefix(out.String(), "=== BEGIN goroutine stack dump ===\n") || !strings.Contains(out.String(), "TestStacksAreMarked") {
		t.Errorf("%.200s", out.String())
	}
}

// TestMain lets the test binary stand in for a supervisor: it answers on the
// socket that it is given and ends by TERM.
func TestMain(m *testing.M) {
	if socket := os.Getenv("ENGINED_TEST_LISTEN"); socket != "" {
		_ = os.Remove(socket)
		listener, err := net.Listen("unix", socket)
		if err != nil {
			os.Exit(1)
		}
		for {
			conn, err := listener.Accept()
			if err != nil {
				os.Exit(1)
			}
			conn.Close()
		}
	}
	os.Exit(m.Run())
}

// testKeeper returns a keeper whose supervisor is this test binary.
func testKeeper(t *testing.T) *keeper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	t.Setenv("ENGINED_TEST_LISTEN", socket)
	return &keeper{socket: socket, start: []string{self}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func TestASupervisorIsStartedFoundStartedAgainAndEnded(t *testing.T) {
	ctx := t.Context()
	first := testKeeper(t)
	if err := first.begin(ctx); err != nil {
		t.Fatal(err)
	}
	began := first.now().pid
	if session, err := unix.Getsid(began); err != nil || session != began {
		t.Errorf("session %d of process %d: %v", session, began, err)
	}

	// Another engined finds it and does not start a second one.
	second := &keeper{socket: first.socket, start: first.start, log: first.log}
	if err := second.begin(ctx); err != nil {
		t.Fatal(err)
	}
	if found := second.now().pid; found != began {
		t.Fatalf("found %d, want %d", found, began)
	}
	first.leave()

	// It dies: the second one starts another.
	if err := unix.Kill(began, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := awaitOther(t, second, began)
	if err := second.stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(next, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there: %v", next, err)
	}
}

// awaitOther returns the pid of the supervisor that follows the one given.
func awaitOther(t *testing.T, k *keeper, pid int) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if now := k.now().pid; now != pid {
			return now
		}
	}
	t.Fatal("no other supervisor was started")
	return 0
}

func TestASupervisorThatEndsAtOnceIsAnErrorThatSaysWhere(t *testing.T) {
	k := testKeeper(t)
	k.start = []string{"/bin/false"}
	err := k.begin(t.Context())
	if err == nil || !strings.Contains(err.Error(), "supervisor.log") {
		t.Errorf("got %v", err)
	}
}

func TestWaitingForAProcessEndsWithItsContext(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	p, err := open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.pidfd.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := p.wait(ctx); err == nil {
		t.Error("a running process has ended")
	}
}
