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
	Host string // 127.0.0.1:port
	Dir  string // where it keeps blobs
}

// NewRegistry starts an empty registry, or skips the test.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	return RegistryOf(t, t.TempDir())
}

// RegistryOf starts a registry of what is in a directory.
func RegistryOf(t testing.TB, dir string) *Registry {
	t.Helper()
	if !Executable(registryBinary) {
		t.Skip("docker-registry is not installed")
	}
	r := &Registry{Host: freePort(t), Dir: dir}
	config := filepath.Join(t.TempDir(), "registry.yml")
	content := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n", r.Dir, r.Host)
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
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

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
