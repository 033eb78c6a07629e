package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// maxRequest bounds one request: labels, log attributes and environments.
const maxRequest = 4 << 20

// connectionBuffer is what each connection reads into; requests are small.
const connectionBuffer = 4 << 10

// window is how much of a request may be under way. Given, it also ends gRPC's
// measuring of the connection, which costs a ping for each message.
const window = 64 << 10

// Listen opens addresses as in --listen: unix:///path or, on the loopback
// interface alone, tcp://host:port. A unix socket is for this user and root.
func Listen(address string) (net.Listener, error) {
	scheme, rest, _ := strings.Cut(address, "://")
	switch {
	case scheme == "unix" && filepath.IsAbs(rest):
		return listenUnix(rest)
	case scheme == "tcp":
		return listenLoopback(rest)
	}
	return nil, errdefs.InvalidArgument.Errorf("listen: %q, expected unix:///path or tcp://127.0.0.1:port", address)
}

// listenUnix replaces a socket that nobody serves any more.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	if isServed(path) {
		return nil, errdefs.FailedPrecondition.Errorf("listen: somebody serves %s already", path)
	}
	if about, err := os.Lstat(path); err == nil {
		if about.Mode().Type() != os.ModeSocket {
			return nil, errdefs.FailedPrecondition.Errorf("listen: %s exists and is no socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing the old socket: %w", err)
		}
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// isServed reports whether a process that lives listens on the socket at path. A
// child that was forked when the last supervisor was killed has the socket until
// its exec, and the kernel remembers who made it listen.
func isServed(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer conn.Close()
	who, err := peerOf(conn.(*net.UnixConn))
	return err != nil || who.Pid <= 0 || !errors.Is(unix.Kill(int(who.Pid), 0), unix.ESRCH)
}

// listenLoopback refuses anything that another machine could reach: there is no
// authentication but the peer's uid, which TCP does not tell.
func listenLoopback(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errdefs.InvalidArgument.Errorf("listen: tcp address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, errdefs.InvalidArgument.Errorf("listen: tcp://%s, expected an address of the loopback interface, as 127.0.0.1", address)
	}
	return net.Listen("tcp", address)
}

// Serve restores the containers, answers requests on listeners until ctx ends,
// then stops within grace. ready is called when requests are answered.
func (s *Supervisor) Serve(ctx context.Context, listeners []net.Listener, grace time.Duration, ready func()) error {
	if err := s.restore(); err != nil {
		return err
	}
	restored := s.restored()
	server := grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.ReadBufferSize(connectionBuffer),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.UnaryInterceptor(s.answer),
		grpc.StreamInterceptor(s.answerStream),
	)
	api.RegisterSupervisorServer(server, s)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)

	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		s.own.Go(func() { failed <- server.Serve(listener) })
	}
	s.own.Go(s.rest)
	ready()
	s.own.Go(func() { s.attendAll(restored) })
	select {
	case <-ctx.Done():
		s.shutdown(server, grace)
		return nil
	case err := <-failed:
		server.Stop()
		return fmt.Errorf("serving: %w", err)
	}
}

// shutdown lets requests end for at most grace; streams end at once, since they
// would not by themselves.
func (s *Supervisor) shutdown(server *grpc.Server, grace time.Duration) {
	s.queues.drain(grace)
	s.stop()
	stopped := make(chan struct{})
	go func() { server.GracefulStop(); close(stopped) }()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		server.Stop()
		<-stopped
	}
}

// answer is around every call: panics become errors, errors statuses.
func (s *Supervisor) answer(ctx context.Context, request any, call *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (response any, err error) {
	began := time.Now()
	defer s.stir()
	defer func() {
		if err != nil {
			s.logger.Debug("a request failed", "method", call.FullMethod, "error", err)
			err = api.ToStatus(err)
		}
		s.metrics.noteRequest(call.FullMethod, time.Since(began), err)
	}()
	defer s.caught(&err)
	return handle(ctx, request)
}

func (s *Supervisor) answerStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if err != nil {
			err = api.ToStatus(err)
		}
	}()
	defer s.caught(&err)
	return handle(server, stream)
}

// peerCredentials lets root and the supervisor's own user in. It is no
// encryption: unix sockets and the loopback interface stay on the machine.
type peerCredentials struct{}

// peer is what is known of a client.
type peer struct{ credentials.CommonAuthInfo }

// AuthType names the kind of check.
func (peer) AuthType() string { return "peer-uid" }

// ServerHandshake checks who connects; the kernel vouches for a unix peer.
func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if unixConn, isUnix := conn.(*net.UnixConn); isUnix {
		if err := checkPeer(unixConn); err != nil {
			return nil, nil, err
		}
	}
	return conn, peer{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}, nil
}

func checkPeer(conn *net.UnixConn) error {
	who, err := peerOf(conn)
	if err != nil {
		return fmt.Errorf("asking who connects: %w", err)
	}
	if who.Uid != 0 && int(who.Uid) != os.Geteuid() {
		return errdefs.PermissionDenied.Errorf("uid %d may not use this supervisor", who.Uid)
	}
	return nil
}

// peerOf returns who is at the other end (unix(7), SO_PEERCRED).
func peerOf(conn *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(err, controlErr)
}

// ClientHandshake is there for the interface: this is the server's side.
func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.ErrUnsupported
}

// Info names the protocol as gRPC wants it.
func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
}

// Clone returns a copy.
func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

// OverrideServerName does nothing, as there are no names.
func (peerCredentials) OverrideServerName(string) error { return nil }
