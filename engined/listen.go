package engined

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/engined/engined/proto/errdefs"
)

// address is one entry of Config.Hosts.
type address struct{ scheme, at string }

// parseHost reads a host and refuses one that would let anybody on the network
// be root here: without verified client certificates, TLS keeps nobody out.
func parseHost(host string, verified bool) (address, error) {
	scheme, at, ok := strings.Cut(host, "://")
	if !ok {
		return address{}, errdefs.InvalidArgument.Errorf("expected unix://PATH, tcp://HOST:PORT or fd://, got %q", host)
	}
	a := address{scheme, at}
	switch scheme {
	case "unix":
		if at == "" {
			a.at = strings.TrimPrefix(DefaultHost, "unix://")
		} else if !filepath.IsAbs(at) {
			return a, errdefs.InvalidArgument.Errorf("expected an absolute path after unix://, got %q", host)
		}
	case "tcp":
		return a, checkTCP(a, verified)
	case "fd":
	default:
		return a, errdefs.InvalidArgument.Errorf("expected unix://, tcp:// or fd://, got %q", host)
	}
	return a, nil
}

func checkTCP(a address, verified bool) error {
	host, port, err := net.SplitHostPort(a.at)
	if err != nil {
		return errdefs.InvalidArgument.Errorf("tcp://%s: %w", a.at, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errdefs.InvalidArgument.Errorf("tcp://%s: expected a port number, got %q", a.at, port)
	}
	ip := net.ParseIP(host)
	if !verified && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return errdefs.InvalidArgument.Errorf("tcp://%s: whoever reaches it is root on this machine: configure tlsverify, or listen on loopback", a.at)
	}
	return nil
}

// listen opens all listeners, or none.
func listen(c *Config) (_ []net.Listener, err error) {
	var opened []net.Listener
	defer func() {
		if err != nil {
			closeAll(opened)
		}
	}()
	for _, host := range c.Hosts {
		a, err := parseHost(host, c.TLSVerify)
		if err != nil {
			return nil, err
		}
		more, err := a.open(c)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", host, err)
		}
		opened = append(opened, more...)
	}
	return opened, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

func (a address) open(c *Config) ([]net.Listener, error) {
	switch a.scheme {
	case "unix":
		return one(listenUnix(a.at, c.Group))
	case "tcp":
		return one(listenTCP(a.at, c))
	}
	return inherited(a.at)
}

func one(l net.Listener, err error) ([]net.Listener, error) {
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// listenUnix opens a socket for root and a group. One that a dead daemon left
// is replaced; one that somebody answers is not.
func listenUnix(path, group string) (_ net.Listener, err error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, errdefs.Conflict.Errorf("another process listens there")
	}
	gid, err := socketGroup(group)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

func removeSocket(path string) error {
	stat, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if stat.Mode().Type() != os.ModeSocket {
		return errdefs.Conflict.Errorf("%s is there and is no socket", path)
	}
	return os.Remove(path)
}

// socketGroup returns the id of the socket's group. The default need not exist.
func socketGroup(name string) (int, error) {
	wanted := name
	if wanted == "" {
		wanted = "docker"
	}
	found, err := user.LookupGroup(wanted)
	if err == nil {
		return strconv.Atoi(found.Gid)
	}
	if gid, numeric := strconv.Atoi(wanted); numeric == nil {
		return gid, nil
	}
	if name == "" {
		return 0, nil
	}
	return 0, errdefs.InvalidArgument.Errorf("group %q: %w", name, err)
}

func listenTCP(at string, c *Config) (net.Listener, error) {
	listener, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	if !c.TLS {
		return listener, nil
	}
	secured, err := tlsConfig(c)
	if err != nil {
		listener.Close()
		return nil, err
	}
	return tls.NewListener(listener, secured), nil
}

func tlsConfig(c *Config) (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("tlscert and tlskey: %w", err)
	}
	// Docker's stream takes the connection over, which HTTP/2 does not have.
	secured := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if !c.TLSVerify {
		return secured, nil
	}
	authority, err := os.ReadFile(c.TLSCACert)
	if err != nil {
		return nil, fmt.Errorf("tlscacert: %w", err)
	}
	secured.ClientCAs = x509.NewCertPool()
	if !secured.ClientCAs.AppendCertsFromPEM(authority) {
		return nil, errdefs.InvalidArgument.Errorf("tlscacert: no certificate in %s", c.TLSCACert)
	}
	secured.ClientAuth = tls.RequireAndVerifyClientCert
	return secured, nil
}

// inherited takes over the sockets of sd_listen_fds(3): all of them, or the
// one whose descriptor is named.
func inherited(which string) ([]net.Listener, error) {
	all, err := activation.Listeners()
	if err != nil {
		return nil, err
	}
	var found []net.Listener
	for i, l := range all {
		number := 3 + i // SD_LISTEN_FDS_START
		wanted := which == "" || which == "*" || which == strconv.Itoa(number)
		switch {
		case l != nil && wanted:
			found = append(found, l)
		case l != nil:
			l.Close()
		}
	}
	if len(found) == 0 {
		return nil, errdefs.InvalidArgument.Errorf("no such socket was inherited (LISTEN_FDS): start it by socket activation: %w", syscall.ENOENT)
	}
	return found, nil
}
