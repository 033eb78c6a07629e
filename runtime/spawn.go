package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/shim"
)

// backlog of a shim's socket: attaches that arrive while the shim is busy.
const backlog = 64

// shimProcess is a shim that runs or has run, or what one has called or left, our child
// or, after a restart of the supervisor, init's. That it dies is seen by its connection's end; whoever
// then has to know calls exited. A goroutine for each shim that lives would be
// a stack more for each container.
type shimProcess struct {
	pid   int
	pidfd *os.File
	child bool

	once sync.Once
	gone chan struct{} // closed when it is dead and, if ours, reaped
}

// exited returns a channel that closes when the shim is dead and, if it is our
// child, reaped.
func (p *shimProcess) exited() <-chan struct{} {
	p.once.Do(func() { go p.bury() })
	return p.gone
}

// bury waits for the process's end without occupying a thread: a pidfd is
// readable from then on, pidfd_open(2).
func (p *shimProcess) bury() {
	defer p.pidfd.Close()
	defer close(p.gone)
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return // closed, which nobody but us does
	}
	_ = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
	if p.child { // by its pidfd: reapStrays may have come first, and the pid be another's
		_ = raw.Control(func(fd uintptr) { _ = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED, nil) })
	}
}

// dead reports whether the shim has ended.
func (p *shimProcess) dead() bool {
	select {
	case <-p.gone:
		return true
	default:
	}
	raw, err := p.pidfd.SyscallConn()
	ended := true // where its pidfd is closed
	if err == nil {
		_ = raw.Control(func(fd uintptr) { ended = readable(int(fd)) })
	}
	return ended
}

// kill sends SIGKILL, which reaches nobody else: a pidfd names one process.
func (p *shimProcess) kill() error {
	raw, err := p.pidfd.SyscallConn()
	var killed error
	if err == nil {
		err = raw.Control(func(fd uintptr) { killed = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
	if p.dead() { // and its pidfd closed
		return nil
	}
	if err != nil {
		return err
	}
	if errors.Is(killed, unix.ESRCH) {
		return nil
	}
	return killed
}

// wait waits until the shim is dead or ctx ends.
func (p *shimProcess) wait(ctx context.Context) error {
	select {
	case <-p.exited():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newShimProcess takes over a pidfd.
func newShimProcess(pid, pidfd int, child bool) (*shimProcess, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("making shim %d's pidfd pollable: %w", pid, err)
	}
	return &shimProcess{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd of a shim"), child: child, gone: make(chan struct{})}, nil
}

func readable(fd int) bool {
	polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(polled, 0)
	return n > 0 && err == nil
}

// findShim returns the running shim that self describes, or nil if it is dead.
func findShim(self shim.Self) (*shimProcess, error) {
	return findProcess(self.Pid, self.Start, false)
}

// findProcess returns the process that had this pid at that start, or nil if it
// is gone. A child is reaped when it dies.
func findProcess(pid int, start uint64, child bool) (*shimProcess, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening a pidfd of process %d: %w", pid, err)
	}
	// Asked after the pidfd is open, the start time is of the pidfd's process or
	// the process is dead.
	if now, err := shim.StartTime(pid); err != nil || now != start {
		unix.Close(pidfd)
		return nil, nil //nolint:nilerr // gone
	}
	return newShimProcess(pid, pidfd, child)
}

// openProcess returns the process that has this pid now, or nil if there is none.
func openProcess(pid int, child bool) (*shimProcess, error) {
	start, err := shim.StartTime(pid)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // it has ended
	}
	return findProcess(pid, start, child)
}

// spawnShim puts the container's shim on its listening socket: one from the
// reserve, or a new one.
func (c *Container) spawnShim(listener *os.File, reserve *Reserve) (process *shimProcess, ahead bool, err error) {
	log, err := os.OpenFile(filepath.Join(c.dir, shim.LogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer log.Close()
	if process := reserve.adopt(c, listener, log); process != nil {
		return process, true, nil
	}
	process, err = c.host.spawn([]string{c.record.ID, c.record.Bundle, c.record.Runtime}, c.dir, listener, log)
	return process, false, err
}

// spawn starts a shim on a socket. Its death is known from its birth.
func (h *Host) spawn(args []string, dir string, socket, log *os.File) (*shimProcess, error) {
	pidfd := -1
	// GOMAXPROCS is for the shim's own Go runtime, which reads it before any code
	// of ours; the shim takes it out of what it passes on. Its session it makes
	// itself: made between fork and exec, it takes the child's precedence, and until
	// the exec the child holds one of our Go processors. Among many, its start as a
	// whole is to take none of our time.
	cmd := &exec.Cmd{
		Path:        h.Shim,
		Args:        append([]string{h.Shim}, args...),
		Dir:         dir,
		Env:         append(environment(), "GOMAXPROCS=1"),
		Stderr:      log,
		ExtraFiles:  []*os.File{socket}, // becomes shim.SocketFD
		SysProcAttr: &syscall.SysProcAttr{PidFD: &pidfd, Setsid: h.Crowded.Load()},
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the shim: %w", err)
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil { // wait4 is bury's
		h.Logger.Warn("releasing the shim's handle", "pid", pid, "error", err)
	}
	if pidfd < 0 {
		return nil, fmt.Errorf("the kernel gives no pidfd (Linux 5.4 has it)")
	}
	return newShimProcess(pid, pidfd, true)
}

// environment is ours without what systemd meant for us alone: a runtime would
// hand NOTIFY_SOCKET on to the container.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == "NOTIFY_SOCKET" || name == "WATCHDOG_PID" || name == "WATCHDOG_USEC" || strings.HasPrefix(name, "LISTEN_")
	})
}

// listen binds the shim's socket. The path may be longer than a socket address
// can hold, so it is bound by way of its directory's descriptor.
func listen(dir string) (*os.File, error) {
	at, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making the shim's socket: %w", err)
	}
	listener := os.NewFile(uintptr(fd), shim.SocketFile)
	path := "/proc/self/fd/" + strconv.Itoa(int(at.Fd())) + "/" + shim.SocketFile
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = os.Chmod(filepath.Join(dir, shim.SocketFile), 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("binding the shim's socket in %s: %w", dir, err)
	}
	return listener, nil
}
