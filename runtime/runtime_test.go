package runtime

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

func testHost(t *testing.T) *Host {
	return &Host{
		StateDir: t.TempDir(), Root: t.TempDir(), Shim: "/bin/false", Runtime: "true",
		Limits: Limits{Shim: time.Minute, Start: time.Minute, Runtime: time.Minute},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func TestRuntimeErrorIsTheLogsLastErrorLine(t *testing.T) {
	log := `{"level":"warning","msg":"odd","time":"t"}
{"level":"error","msg":"first","time":"t"}
{"level":"error","msg":"no such file","time":"t","kind":"not-found","code":"exec-not-found","subject":"foo"}
{"level":"info","msg":"bye"}
{"level":"error","ms`
	err := runtimeError("runc start", errors.New("exit status 1"), []byte(log), []byte("noise"))
	if code, subject := errdefs.CodeAndSubject(err); errdefs.KindOf(err) != errdefs.NotFound || code != errdefs.ExecNotFound || subject != "foo" {
		t.Errorf("%q: kind %q, code %q, subject %q", err, errdefs.KindOf(err), code, subject)
	}
	if err.Error() != "runc start: no such file" {
		t.Errorf("%q", err)
	}
	err = runtimeError("runc start", errors.New("exit status 1"), nil, []byte(" said \n"))
	if err.Error() != "runc start: exit status 1: said" {
		t.Errorf("without a log: %q", err)
	}
}

func TestInvokeBoundsTimeAndOutput(t *testing.T) {
	host := testHost(t)
	script := filepath.Join(t.TempDir(), "runtime")
	c := &Container{host: host, dir: t.TempDir(), record: shim.Container{ID: "a", Runtime: script, RuntimeArgs: []string{"--root", "/r"}}}
	write := func(body string) {
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(`test "$*" = "--root /r --log /proc/self/fd/3 --log-format json update a" && test "$(cat)" = input && test -z "$NOTIFY_SOCKET"`)
	t.Setenv("NOTIFY_SOCKET", "/x")
	if err := c.invoke(t.Context(), []byte("input"), "update", "a"); err != nil {
		t.Error(err)
	}
	write(`echo '{"level":"error","msg":"container does not exist","kind":"not-found"}' > /proc/self/fd/3; exit 1`)
	if err := c.invoke(t.Context(), nil, "update", "a"); errdefs.KindOf(err) != errdefs.NotFound {
		t.Error(err)
	}
	write(`yes x | head -c 10000000 >&2; exit 1`)
	if err := c.invoke(t.Context(), nil, "update", "a"); err == nil || len(err.Error()) > 2*maxSaid {
		t.Errorf("%d bytes", len(err.Error()))
	}
	host.Limits.Runtime = 50 * time.Millisecond
	write(`exec sleep 100`)
	if err := c.invoke(t.Context(), nil, "update", "a"); errdefs.KindOf(err) != errdefs.DeadlineExceeded {
		t.Error(err)
	}
}

func TestMissingRuntimeIsNamed(t *testing.T) {
	host := testHost(t)
	for _, name := range []string{"no-such-runtime", "/no/such/runtime", "/etc/passwd"} {
		_, err := host.ResolveRuntime(name)
		if code, subject := errdefs.CodeAndSubject(err); code != errdefs.RuntimeMissing || subject != name || errdefs.KindOf(err) != errdefs.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if path, err := host.ResolveRuntime(""); err != nil || !filepath.IsAbs(path) {
		t.Errorf("the default: %q, %v", path, err)
	}
}

func TestCreateWithAShimThatDiesLeavesNothing(t *testing.T) {
	host := testHost(t)
	shimPath := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(shimPath, []byte("#!/bin/sh\necho why it died >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	host.Shim = shimPath
	bundle := t.TempDir()
	recipe := Recipe{ID: "a", Bundle: bundle}
	if _, _, err := host.Create(t.Context(), recipe); errdefs.CodeOf(err) != errdefs.BundleInvalid {
		t.Errorf("without config.json: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, broken := range []string{shimPath, "/no/such/shim"} {
		host.Shim = broken
		_, _, err := host.Create(t.Context(), recipe)
		if err == nil || (broken == shimPath && !strings.Contains(err.Error(), "why it died")) {
			t.Errorf("%s: %v", broken, err)
		}
		if entries, _ := os.ReadDir(host.StateDir); len(entries) != 0 {
			t.Errorf("%s: left over: %v", broken, entries)
		}
	}
}

func TestWhatCannotBeEndedKeepsItsDirectory(t *testing.T) {
	host := testHost(t)
	scripts, bundle := t.TempDir(), t.TempDir()
	host.Shim, host.Runtime = filepath.Join(scripts, "shim"), filepath.Join(scripts, "runtime")
	err := errors.Join(
		os.WriteFile(host.Shim, []byte("#!/bin/sh\nexit 1\n"), 0o700),
		os.WriteFile(host.Runtime, []byte("#!/bin/sh\ntest ! -e "+scripts+"/refuse\n"), 0o700),
		os.WriteFile(filepath.Join(scripts, "refuse"), nil, 0o600),
		os.MkdirAll(filepath.Join(host.runtimeRoot(host.Runtime), "a"), 0o700),
		os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := host.Create(t.Context(), Recipe{ID: "a", Bundle: bundle}); err == nil {
		t.Error("a shim that dies makes a container")
	}
	for range 2 {
		c, _, err := host.Load(t.Context(), "a")
		if err != nil || !c.Doomed() {
			t.Fatalf("what could not be deleted: %v", err)
		}
		if err := host.Clear(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "container a") {
			t.Errorf("it cannot be deleted yet: %v", err)
		}
	}
	if err := os.Remove(filepath.Join(scripts, "refuse")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second has nothing to do
		if err := host.Clear(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	}
	if entries, _ := os.ReadDir(host.StateDir); len(entries) != 0 {
		t.Errorf("left over: %v", entries)
	}
}

// A runtime that can delete nothing, because it never works, keeps no directory.
func TestARuntimeThatDoesNotWorkLeavesNothing(t *testing.T) {
	host, bundle := testHost(t), t.TempDir()
	host.Runtime = "/bin/false"
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := host.Create(t.Context(), Recipe{ID: "a", Bundle: bundle}); err == nil {
		t.Error("a shim that dies makes a container")
	}
	if entries, err := os.ReadDir(host.StateDir); err != nil || len(entries) != 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

func TestCreateWithAShimThatHangsEndsInTime(t *testing.T) {
	host := testHost(t)
	host.Shim = filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(host.Shim, []byte("#!/bin/sh\necho $$ > "+host.Root+"/pid\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	host.Limits = Limits{Shim: 2 * time.Second, Start: 2 * time.Second, Runtime: 2 * time.Second} // all of it is waited for
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := host.Create(t.Context(), Recipe{ID: "a", Bundle: bundle})
	if code, subject := errdefs.CodeAndSubject(err); code != errdefs.ShimStuck || subject != "a" {
		t.Errorf("%v", err)
	}
	pid, readErr := os.ReadFile(host.Root + "/pid")
	if readErr != nil {
		t.Log("it was killed before it could say who it is")
	} else if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Error("the shim lives on")
	}
	if entries, _ := os.ReadDir(host.StateDir); len(entries) != 0 {
		t.Errorf("left over: %v", entries)
	}
}

func TestShimIsFoundByPidAndStartTime(t *testing.T) {
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Process.Kill()
	start, err := shim.StartTime(sleep.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := findShim(shim.Self{Pid: sleep.Process.Pid, Start: start + 1}); other != nil || err != nil {
		t.Errorf("a process of another time: %v, %v", other, err)
	}
	found, err := findShim(shim.Self{Pid: sleep.Process.Pid, Start: start})
	if err != nil || found == nil || found.dead() {
		t.Fatalf("%v, %v", found, err)
	}
	if err := found.kill(); err != nil {
		t.Error(err)
	}
	if err := sleep.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	if err := found.wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := found.kill(); err != nil {
		t.Errorf("killing the dead: %v", err)
	}
	if again, err := findShim(shim.Self{Pid: sleep.Process.Pid, Start: start}); again != nil || err != nil {
		t.Errorf("after its death: %v, %v", again, err)
	}
}

func TestSocketPathMayBeLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	about, err := os.Stat(filepath.Join(dir, shim.SocketFile))
	if err != nil || about.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", about, err)
	}
	conn, err := shim.Dial(t.Context(), filepath.Join(dir, shim.SocketFile))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if kind, err := unix.GetsockoptInt(int(listener.Fd()), unix.SOL_SOCKET, unix.SO_TYPE); kind != unix.SOCK_SEQPACKET || err != nil {
		t.Errorf("type %d, %v", kind, err)
	}
}

func TestInterfacesAreRead(t *testing.T) {
	got, err := parseInterfaces(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     1       1    0    0    0     0          0         0        1       1    0    0    0     0       0          0
  eth0: 10 11 12 13 14 15 16 17 20 21 22 23 24 25 26 27
`)
	want := []Interface{{"eth0", 10, 11, 12, 13, 20, 21, 22, 23}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := parseInterfaces("eth0: 1 2 3\n"); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Error(err)
	}
}

// What a child leaves behind is ours, and reaped when it ends.
func TestStraysAreReaped(t *testing.T) {
	if err := BecomeSubreaper(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var reaper sync.WaitGroup
	reaper.Go(func() { ReapStrays(ctx) })
	defer reaper.Wait()
	defer cancel()
	out, err := exec.Command("/bin/sh", "-c", "setsid sleep 0.1 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !errors.Is(unix.Kill(pid, 0), unix.ESRCH); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}
