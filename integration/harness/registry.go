package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// registryBinary is Debian's package docker-registry.
const registryBinary = "/usr/bin/docker-registry"

// Registry is a docker-registry on loopback that ends with the test.
type Registry struct {
	Host string // address:port
	Dir  string // where it keeps blobs
}

// RegistryOptions choose what a registry demands. The zero value: nothing.
type RegistryOptions struct {
	Dir       string // where it keeps blobs; "": a new one
	Address   string // "": 127.0.0.1
	TLS       string // directory with server.crt and server.key, and ca.crt
	ClientTLS bool   // only clients with a certificate of the CA
	Password  bool   // user and secret, see RegistryUser
	Token     string // URL that issues tokens, for the service "test" as "issuer"
	TokenRoot string // file with the issuer's certificate
}

// RegistryUser may use a registry with a password, with RegistryPassword.
const (
	RegistryUser     = "user"
	RegistryPassword = "secret"
	registryHash     = "$2b$04$NQB/2qOsqFOm122tzm4o0O4oTrJyFfWBAWyf9yWs0VtpkAkfyzh5K" // bcrypt of the password
)

// NewRegistry starts an empty registry, or skips the test.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	return NewRegistryWith(t, RegistryOptions{})
}

// RegistryOf starts a registry of what is in a directory.
func RegistryOf(t testing.TB, dir string) *Registry {
	t.Helper()
	return NewRegistryWith(t, RegistryOptions{Dir: dir})
}

// NewRegistryWith is NewRegistry with options.
func NewRegistryWith(t testing.TB, options RegistryOptions) *Registry {
	t.Helper()
	if !Executable(registryBinary) {
		t.Skip("docker-registry is not installed")
	}
	if options.Address == "" {
		options.Address = "127.0.0.1"
	}
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	r := &Registry{Host: freePort(t, options.Address), Dir: options.Dir}
	config := filepath.Join(t.TempDir(), "registry.yml")
	if err := os.WriteFile(config, []byte(r.settings(t, options)), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(filepath.Dir(config), "registry.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(registryBinary, "serve", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		said, _ := os.ReadFile(log.Name())
		if t.Failed() {
			t.Logf("docker-registry said:\n%s", said[max(0, len(said)-2000):])
		}
	})
	awaitListener(t, r.Host, ended)
	return r
}

// settings is the registry's configuration file.
func (r *Registry) settings(t testing.TB, o RegistryOptions) string {
	content := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\n", r.Dir)
	content += fmt.Sprintf("http:\n  addr: %q\n", r.Host)
	if o.TLS != "" {
		content += fmt.Sprintf("  tls:\n    certificate: %q\n    key: %q\n", filepath.Join(o.TLS, "server.crt"), filepath.Join(o.TLS, "server.key"))
		if o.ClientTLS {
			content += fmt.Sprintf("    clientcas: [%q]\n", filepath.Join(o.TLS, "ca.crt"))
		}
	}
	if o.Password {
		users := filepath.Join(t.TempDir(), "htpasswd")
		if err := os.WriteFile(users, []byte(RegistryUser+":"+registryHash+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		content += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", users)
	}
	if o.Token != "" {
		content += fmt.Sprintf("auth: {token: {realm: %q, service: test, issuer: issuer, rootcertbundle: %q}}\n", o.Token, o.TokenRoot)
	}
	return content
}

func freePort(t testing.TB, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// awaitListener connects until somebody accepts.
func awaitListener(t testing.TB, address string, ended chan error) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("docker-registry ended at its start: %v", err)
		default:
		}
	}
	t.Fatalf("docker-registry does not accept on %s", address)
}
