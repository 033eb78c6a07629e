package libcontainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

const (
	notifyInside        = "/run/notify" // where the container has ROOT/ID/notify
	notifyName          = "notify.sock"
	longestNotification = 4096             // PIPE_BUF: systemd takes no longer ones
	barrierPatience     = 30 * time.Second // systemd may be busy
	procPatience        = 100 * time.Millisecond
)

// notifySocket is where the container says that it is ready, for whoever has
// started us with NOTIFY_SOCKET set (sd_notify(3)):
//
//	container                 we                          the host's socket
//	READY=1 ────────────────> ROOT/ID/notify/notify.sock
//	(all else is dropped)     READY=1 ──────────────────>
//	                          MAINPID=PID ──────────────>
//	                          BARRIER=1, a pipe's end ──> closes it once it is there
//
// Nobody but the container gets to our end: ROOT/ID is 0700, and the container
// cannot replace it, as its mount is read-only. The container is not trusted: it must
// not say which process is the service's, nor leave descriptors with systemd, nor fill
// its journal. Only the line READY= is passed on, the first one, then our work is done.
//
// systemd tells by the pid of the sender which unit a datagram is about, and who sent
// it must still be there then: hence the barrier (sd_notify_barrier(3)).
//
// The methods do nothing for nil, a container without.
type notifySocket struct {
	container *Container
	host      string // a path, or "@" and an abstract name
	fd        int    // what the container sends to; -1 before bind
}

func (c *Container) notifyDirectory() string { return filepath.Join(c.Dir(), NotifyDir) }

// hasNotify reports whether the container was made with a socket to notify.
func (c *Container) hasNotify() bool { return exists(c.notifyDirectory()) }

// mountNotify adds to the spec what the container gets, as in runc. Processes of exec
// do not: theirs is the kept config.json.
func (l *launch) mountNotify() {
	if l.opts.NotifySocket == "" {
		return
	}
	l.spec.Mounts = append(l.spec.Mounts, specs.Mount{
		Destination: notifyInside, Source: l.container.notifyDirectory(), Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	l.spec.Process.Env = append(l.spec.Process.Env, "NOTIFY_SOCKET="+notifyInside+"/"+notifyName)
}

// isDirectory asks for a bind's source. In a dry run that of the notify socket is not
// there.
func (l *launch) isDirectory(path string) (bool, error) {
	if l.opts.NotifySocket != "" && path == l.container.notifyDirectory() {
		return true, nil
	}
	return isDirectory(path)
}

// makeNotify makes the directory that is mounted, and the socket unless start is to.
func (l *launch) makeNotify() error {
	if l.opts.NotifySocket == "" {
		return nil
	}
	directory := l.container.notifyDirectory()
	if err := os.Mkdir(directory, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(directory, 0o755); err != nil { // whatever the umask
		return err
	}
	l.mountNotify()
	if l.mode == waiting {
		return nil
	}
	l.notify = l.container.notifyBy(l.opts.NotifySocket)
	return l.notify.bind()
}

// notifyBy returns the container's socket, not bound yet; nil if there is nobody to
// tell, or the container was made without.
func (c *Container) notifyBy(host string) *notifySocket {
	if host == "" || !c.hasNotify() {
		return nil
	}
	return &notifySocket{container: c, host: host, fd: -1}
}

// bind makes the socket, which every user of the container may write to. Its path may
// be longer than an address can hold, so it goes by way of the directory's descriptor.
func (n *notifySocket) bind() (err error) {
	if n == nil {
		return nil
	}
	failed := func(err error) error {
		return fmt.Errorf("making the socket %s of %s: %w", notifyName, n.container.notifyDirectory(), err)
	}
	directory, err := unix.Open(n.container.notifyDirectory(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed(err)
	}
	defer unix.Close(directory)
	if n.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return failed(err)
	}
	// The inode's mode is the socket's, without the umask; later a link could be there.
	if err := unix.Fchmod(n.fd, 0o777); err != nil {
		return failed(err)
	}
	defer unix.Umask(unix.Umask(0))
	if err := unix.Bind(n.fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(directory) + "/" + notifyName}); err != nil {
		return failed(err)
	}
	return nil
}

func (n *notifySocket) close() {
	if n != nil && n.fd >= 0 {
		unix.Close(n.fd)
	}
}

// accompany relays while the process is attended. Then the service's process is us, who
// end when it does. The returned function stops it and waits for its end.
func (n *notifySocket) accompany(ctx context.Context) (stop func()) {
	if n == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.relay(ctx, os.Getpid()); err != nil && !errors.Is(err, context.Canceled) {
			slog.Warn(err.Error())
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// relay waits until the container is ready and tells the host so, and that mainPid is
// the service's process. A container that ends before is none of its business.
func (n *notifySocket) relay(ctx context.Context, mainPid int) error {
	if n == nil {
		return nil
	}
	host, err := connectUnix(unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, n.host) // first: a wait that nobody hears the end of is for nothing
	if err != nil {
		return n.unsent(err)
	}
	defer unix.Close(host)
	line, err := n.awaitReady(ctx)
	if err != nil {
		return fmt.Errorf("waiting for the container to be ready: %w", err)
	}
	if line == nil {
		return nil
	}
	for _, said := range []string{string(line) + "\n", "MAINPID=" + strconv.Itoa(mainPid) + "\n"} {
		if err := sendDatagram(ctx, host, said, nil); err != nil {
			return n.unsent(err)
		}
	}
	if err := awaitBarrier(ctx, host); err != nil { // systemd before 246 does not know it
		slog.Debug("waiting for the notify socket's other end: " + err.Error())
	}
	return nil
}

func (n *notifySocket) unsent(err error) error {
	return errdefs.Unavailable.Errorf("sending to the notify socket %q: %w", n.host, err)
}

// awaitReady returns the line READY=, or none if the container's process has ended
// without it.
func (n *notifySocket) awaitReady(ctx context.Context) ([]byte, error) {
	process, err := n.container.pidfd()
	if errdefs.CodeOf(err) == errdefs.NotRunning {
		return n.lastWord()
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	for {
		interrupted := n.wait(ctx, process)
		line, err := n.receive()
		if line != nil || err != nil && !errors.Is(err, unix.EAGAIN) {
			return line, err
		}
		alive, err := n.container.initAlive()
		switch {
		case err != nil:
			return nil, err
		case !alive:
			return n.lastWord()
		case interrupted != nil:
			return nil, interrupted
		}
	}
}

// wait waits for a datagram or the end of the process. A directory of /proc, which we
// have before 5.3, does not tell of the latter.
func (n *notifySocket) wait(ctx context.Context, process int) error {
	var kind unix.Stat_t
	if err := unix.Fstat(process, &kind); err != nil {
		return err
	}
	if kind.Mode&unix.S_IFMT != unix.S_IFDIR {
		return poll(ctx, unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN}, unix.PollFd{Fd: int32(process), Events: unix.POLLIN})
	}
	short, cancel := context.WithTimeout(ctx, procPatience)
	defer cancel()
	if err := poll(short, unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN}); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return ctx.Err()
}

// lastWord reads what a process that has ended had sent. Others of the container may
// go on sending, which nobody waits for: they are cut off.
func (n *notifySocket) lastWord() ([]byte, error) {
	if err := unix.Shutdown(n.fd, unix.SHUT_RD); err != nil {
		return nil, err
	}
	for {
		line, err := n.receive()
		if errors.Is(err, unix.EAGAIN) {
			return nil, nil
		}
		if line != nil || err != nil {
			return line, err
		}
	}
}

// receive takes one datagram and returns its line READY=, if it has one. systemd ends a
// line at a carriage return, too.
func (n *notifySocket) receive() ([]byte, error) {
	buffer := make([]byte, longestNotification+1)
	size, err := unix.Read(n.fd, buffer) // descriptors that came with it are dropped
	if err != nil || size > longestNotification {
		return nil, err
	}
	for line := range bytes.FieldsFuncSeq(buffer[:size], func(r rune) bool { return r == '\n' || r == '\r' }) {
		if bytes.HasPrefix(line, []byte("READY=")) {
			return line, nil
		}
	}
	return nil, nil
}

// awaitBarrier waits until the other side has read all that was sent before: it closes
// the end of a pipe then.
func awaitBarrier(ctx context.Context, host int) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	ctx, cancel := context.WithTimeout(ctx, barrierPatience)
	defer cancel()
	err := sendDatagram(ctx, host, "BARRIER=1", unix.UnixRights(pipe[1]))
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	return poll(ctx, unix.PollFd{Fd: int32(pipe[0])}) // its end needs no asking for
}
