package engined

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	supervisorStart = 10 * time.Second // to answer after its start
	supervisorStop  = 15 * time.Second // to end after TERM
	restartPause    = 5 * time.Second  // longest time between two starts
)

// keeper sees to it that a supervisor answers on a socket: the one that it
// finds there, which an earlier engined may have started, or one that it
// starts. It starts another whenever that one dies.
type keeper struct {
	socket string
	start  []string // command line
	log    *slog.Logger

	unwatch  context.CancelFunc
	watching sync.WaitGroup // keep
	children sync.WaitGroup // those that reap

	mu      sync.Mutex // guards current
	current *process
}

// process is a running supervisor. The descriptor makes sure that the pid is
// still that process.
type process struct {
	pid    int
	pidfd  *os.File
	reaped chan struct{} // closed when our child is reaped; nil for a foreign one
}

// ownSupervisor finds or starts the supervisor of an exec root and keeps it.
func ownSupervisor(ctx context.Context, c *Config, runtime string, log *slog.Logger) (*keeper, error) {
	binary, err := findBinary("supervisor")
	if err != nil {
		return nil, err
	}
	shim, err := findBinary("shim")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(c.ExecRoot, "supervisor.sock")
	start := []string{binary, "--listen", "unix://" + socket,
		"--state-dir", filepath.Join(c.ExecRoot, "supervisor"), "--shim", shim, "--runtime", runtime}
	if c.Debug {
		start = append(start, "--debug")
	}
	k := &keeper{socket: socket, start: start, log: log}
	if err := k.begin(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// begin finds or starts the supervisor and watches it from then on.
func (k *keeper) begin(ctx context.Context) (err error) {
	if k.current, err = k.findOrStart(ctx); err != nil {
		return err
	}
	watch, cancel := context.WithCancel(context.Background())
	k.unwatch = cancel
	k.watching.Go(func() { k.keep(watch) })
	return nil
}

func (k *keeper) address() string { return "unix://" + k.socket }

// findOrStart returns the process that answers on the socket.
func (k *keeper) findOrStart(ctx context.Context) (*process, error) {
	if found, err := k.answering(); err == nil {
		k.log.Info("using the supervisor that runs", "pid", found.pid, "socket", k.socket)
		return found, nil
	}
	started, err := k.spawn()
	if err != nil {
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	if err := k.await(ctx, started); err != nil {
		return nil, errors.Join(err, started.abandon())
	}
	k.log.Info("started the supervisor", "pid", started.pid, "socket", k.socket)
	return started, nil
}

// answering returns the process that listens on the socket, as the kernel
// remembers it.
func (k *keeper) answering() (*process, error) {
	conn, err := net.Dial("unix", k.socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // after the pidfd is open: meanwhile the pid is not reused
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("asking who listens on %s: %w", k.socket, failed)
	}
	return open(int(peer.Pid))
}

func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// spawn starts the supervisor in a session of its own: neither a terminal's
// signals nor our own end reach it.
func (k *keeper) spawn() (*process, error) {
	log, err := os.OpenFile(filepath.Join(filepath.Dir(k.socket), "supervisor.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(k.start[0], k.start[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = withoutNotify(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Not yet reaped, so the pid is its own.
	started, err := open(cmd.Process.Pid)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	started.reaped = make(chan struct{})
	k.children.Go(func() {
		defer close(started.reaped)
		_ = cmd.Wait() // its own log says why it ended
	})
	return started, nil
}

// withoutNotify drops what systemd told us and is not for children.
func withoutNotify(environment []string) (kept []string) {
	for _, entry := range environment {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC":
		default:
			kept = append(kept, entry)
		}
	}
	return kept
}

// await returns once the started supervisor answers. Nothing tells when a
// socket of another process begins to listen, so it is tried.
func (k *keeper) await(ctx context.Context, started *process) error {
	ctx, cancel := context.WithTimeout(ctx, supervisorStart)
	defer cancel()
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := net.Dial("unix", k.socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-retry.C:
		case <-started.reaped:
			return fmt.Errorf("the supervisor ended at once: see %s", filepath.Join(filepath.Dir(k.socket), "supervisor.log"))
		case <-ctx.Done():
			return fmt.Errorf("waiting for the supervisor to answer on %s: %w", k.socket, errors.Join(ctx.Err(), err))
		}
	}
}

// keep starts another supervisor whenever the present one ends, until ctx ends.
// One that does not live long is started again more and more slowly.
func (k *keeper) keep(ctx context.Context) {
	pause := 10 * time.Millisecond
	for {
		began := time.Now()
		if k.now().wait(ctx) != nil {
			return
		}
		k.log.Warn("the supervisor ended; starting it again", "pid", k.now().pid)
		if time.Since(began) > time.Minute {
			pause = 10 * time.Millisecond
		}
		for {
			next, err := k.findOrStart(ctx)
			if err == nil {
				k.set(next)
				break
			}
			k.log.Error("the supervisor is away", "error", err, "retry", pause)
			select {
			case <-time.After(pause):
				pause = min(2*pause, restartPause)
			case <-ctx.Done():
				return
			}
		}
	}
}

func (k *keeper) now() *process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current
}

func (k *keeper) set(p *process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current.pidfd.Close()
	k.current = p
}

// wait returns nil when the process has ended.
func (p *process) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && ready > 0 // a pidfd is readable once its process has ended
	})
}

// leave stops watching and leaves the supervisor alone.
func (k *keeper) leave() {
	k.unwatch()
	k.watching.Wait()
}

// stop ends the supervisor in order.
func (k *keeper) stop(ctx context.Context) error {
	k.leave()
	ctx, cancel := context.WithTimeout(ctx, supervisorStop)
	defer cancel()
	last, err := open(k.current.pid) // the watched descriptor's deadline is spent
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer last.pidfd.Close()
	if err := last.signal(unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending the supervisor, pid %d: %w", last.pid, err)
	}
	if err := last.wait(ctx); err != nil {
		return fmt.Errorf("waiting for the supervisor, pid %d, to end: %w", last.pid, err)
	}
	k.children.Wait()
	return nil
}

func (p *process) signal(signal unix.Signal) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.PidfdSendSignal(int(fd), signal, nil, 0) })
	return errors.Join(err, failed)
}

// abandon ends a supervisor that does not answer. What it has begun to look
// after is in its state directory.
func (p *process) abandon() error {
	defer p.pidfd.Close()
	if err := p.signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending a supervisor that does not answer, pid %d: %w", p.pid, err)
	}
	return nil
}

// findBinary finds another of our binaries: beside this one, else in PATH.
func findBinary(name string) (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", name, err)
	}
	beside := filepath.Join(filepath.Dir(own), name)
	if found, err := exec.LookPath(beside); err == nil {
		return found, nil
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("finding %s beside %s or in PATH: %w", name, own, err)
	}
	return filepath.Abs(found)
}
