package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
)

// startTimeout bounds a daemon's start, stopTimeout its end.
var (
	startTimeout = bundle.Patience(30 * time.Second)
	stopTimeout  = bundle.Patience(30 * time.Second)
)

// Daemon is one process of an instance, started by the test.
type Daemon struct {
	Name string
	Pid  int
	Log  string // file with its output

	exited chan struct{} // closed when it has ended
	err    error         // how it ended; read after exited
}

// start runs a binary in a session of its own, output appended to log, and
// returns when it says READY=1 as sd_notify(3) has it.
func start(name, log string, argv []string) (*Daemon, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	notify := log + ".sock"
	_ = os.Remove(notify) // of the start before
	said, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = said.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	d := &Daemon{Name: name, Pid: cmd.Process.Pid, Log: log, exited: make(chan struct{})}
	go func() { // ends with the process; Kill and Stop wait for it
		d.err = cmd.Wait()
		close(d.exited)
		_ = said.Close() // not before: it may also say RELOADING or STOPPING
	}()
	if err := d.awaitReady(said); err != nil {
		d.Kill()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) awaitReady(said *net.UnixConn) error {
	if err := said.SetReadDeadline(time.Now().Add(startTimeout)); err != nil {
		return err
	}
	message := make([]byte, 4096)
	for {
		n, err := said.Read(message)
		if errors.Is(err, net.ErrClosed) {
			<-d.exited
			return fmt.Errorf("%s ended at its start: %w\n%s", d.Name, d.err, d.tail())
		}
		if err != nil {
			return fmt.Errorf("%s does not get ready: %w\n%s", d.Name, err, d.tail())
		}
		if strings.Contains(string(message[:n]), "READY=1") {
			return nil
		}
	}
}

// Running reports whether the process has not ended.
func (d *Daemon) Running() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// Died waits until the daemon has ended by itself.
func (d *Daemon) Died(within time.Duration) bool {
	select {
	case <-d.exited:
		return true
	case <-time.After(within):
		return false
	}
}

// Kill ends the daemon as a crash does and waits until it is gone.
func (d *Daemon) Kill() {
	_ = syscall.Kill(d.Pid, syscall.SIGKILL)
	<-d.exited
}

// Stop asks the daemon to end and waits for it.
func (d *Daemon) Stop() error {
	if !d.Running() {
		return nil
	}
	_ = syscall.Kill(d.Pid, syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(stopTimeout):
		d.Kill()
		return fmt.Errorf("%s did not end %s after SIGTERM", d.Name, stopTimeout)
	}
	var exit *exec.ExitError
	if errors.As(d.err, &exit) {
		return fmt.Errorf("%s ended with %w after SIGTERM", d.Name, d.err)
	}
	return nil
}

// tail returns the end of the log.
func (d *Daemon) tail() string {
	data, _ := os.ReadFile(d.Log)
	lines := strings.Split(string(data), "\n")
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	return fmt.Sprintf("--- %s, end of %s:\n%s", d.Name, d.Log, strings.Join(lines, "\n"))
}

// Descriptors counts the open file descriptors of the process.
func (d *Daemon) Descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// PeakMemory is the most bytes that the process had resident, ever.
func (d *Daemon) PeakMemory(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatalf("%s: VmHWM: %v", d.Name, err)
	}
	return kib << 10
}
