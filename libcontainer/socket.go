package libcontainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// connectUnix connects a socket of a kind, SOCK_*, without package net, whose start-up
// costs.
func connectUnix(kind int, path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func dialUnix(what, path string) (int, error) {
	fd, err := connectUnix(unix.SOCK_STREAM, path)
	if err != nil {
		return -1, errdefs.InvalidArgument.Errorf("connecting to %s %q: %w", what, path, err)
	}
	return fd, nil
}

// sendTo connects to a socket and sends data with a descriptor on its first
// byte.
func sendTo(what, path string, data []byte, fd int) error {
	socket, err := dialUnix(what, path)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	rights := unix.UnixRights(fd)
	for len(data) > 0 {
		n, err := unix.SendmsgN(socket, data, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sending to %s %q: %w", what, path, err)
		}
		data, rights = data[n:], nil
	}
	return nil
}

// sendDatagram sends one, once there is room for it.
func sendDatagram(ctx context.Context, socket int, text string, rights []byte) error {
	for {
		_, err := unix.SendmsgN(socket, []byte(text), rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		if err := poll(ctx, unix.PollFd{Fd: int32(socket), Events: unix.POLLOUT}); err != nil {
			return err
		}
	}
}

// poll waits for one of the descriptors, or for the context's end, which is an error.
func poll(ctx context.Context, fds ...unix.PollFd) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(wake)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		unix.Write(wake, []byte{7: 1}) //nolint:errcheck // there is room for the first
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	fds = append(fds, unix.PollFd{Fd: int32(wake), Events: unix.POLLIN})
	for {
		if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// sendPidfd gives the process's pidfd to the socket of --pidfd-socket.
func (l *launch) sendPidfd() error {
	if l.opts.PidfdSocket == "" {
		return nil
	}
	pidfd, err := unix.PidfdOpen(l.child.pid, 0)
	if err != nil {
		return fmt.Errorf("opening process %d for --pidfd-socket: %w", l.child.pid, err)
	}
	defer unix.Close(pidfd)
	return sendTo("pidfd socket", l.opts.PidfdSocket, []byte("pidfd"), pidfd)
}

// listener is the duty of taking a filter's listener to the agent, if there is to be
// one.
func (l *launch) listener(status specs.ContainerState) func(fd int) error {
	if l.filter == nil || !l.filter.Notify {
		return nil
	}
	return func(fd int) error { return l.sendListener(fd, status) }
}

// sendListener takes the listener of the process's filter, its descriptor fd,
// to the seccomp agent (config-linux, "The Container Process State").
func (l *launch) sendListener(fd int, status specs.ContainerState) error {
	pidfd, err := unix.PidfdOpen(l.child.pid, 0)
	if err != nil {
		return fmt.Errorf("opening process %d for its seccomp listener: %w", l.child.pid, err)
	}
	defer unix.Close(pidfd)
	listener, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return fmt.Errorf("taking the seccomp listener: %w", err)
	}
	defer unix.Close(listener)
	// The number is the stage's word, which somebody may have put into its mouth.
	if kind, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(listener)); err != nil || kind != "anon_inode:seccomp notify" {
		return errors.Join(errdefs.Internal.Errorf("taking the seccomp listener: expected one, got %q", kind), err)
	}
	profile := l.spec.Linux.Seccomp
	data, err := json.Marshal(&specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: l.child.pid,
		Metadata: profile.ListenerMetadata, State: *l.container.hookState(status),
	})
	if err != nil {
		return err
	}
	return sendTo("the seccomp agent", profile.ListenerPath, data, listener)
}
