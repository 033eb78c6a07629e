package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/client"
)

// dockerdPath is Debian's.
const dockerdPath = "/usr/sbin/dockerd"

// Dockerd is a private instance of Debian's dockerd, the reference.
type Dockerd struct {
	Dir    string
	Socket string
	Daemon *Daemon
}

// NewDockerd starts a dockerd without networks that ends with the test, with
// the busybox image and further flags. The test is skipped where there is none
// or it cannot run.
func NewDockerd(t testing.TB, flags ...string) *Dockerd {
	t.Helper()
	return NewReference(t, t, flags...)
}

// NewReference is NewDockerd for a test that goes on without: only the subtest
// ask is skipped, and the result is then nil.
func NewReference(owner, ask testing.TB, flags ...string) *Dockerd {
	t := ask
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if !Executable(dockerdPath) {
		t.Skip("dockerd is not installed (Debian package docker.io)")
	}
	d := &Dockerd{Dir: TempDir(owner)}
	d.Socket = filepath.Join(d.Dir, "d.sock")
	if err := d.begin(flags); err != nil {
		t.Skipf("Debian's dockerd does not run here: %v", err)
	}
	owner.Cleanup(func() { d.finish(owner) })
	if err := importBusybox(newClient(t, d.Host())); err != nil {
		t.Fatal(err)
	}
	return d
}

// Client returns a client of its API that is closed with the test.
func (d *Dockerd) Client(t testing.TB) *client.Client { return newClient(t, d.Host()) }

// Host is the address for DOCKER_HOST.
func (d *Dockerd) Host() string { return "unix://" + d.Socket }

func (d *Dockerd) begin(flags []string) (err error) {
	config := filepath.Join(d.Dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return err
	}
	d.Daemon, err = start("dockerd", filepath.Join(d.Dir, "dockerd.log"), append([]string{dockerdPath, "-H", d.Host(),
		"--config-file", config, "--data-root", filepath.Join(d.Dir, "data"), "--exec-root", filepath.Join(d.Dir, "x"),
		"--pidfile", filepath.Join(d.Dir, "d.pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"}, flags...))
	return err
}

func (d *Dockerd) finish(t testing.TB) {
	c, err := client.New(client.WithHost(d.Host()))
	if err == nil {
		err = RemoveAll(c)
		_ = c.Close()
	}
	if err != nil {
		t.Error(fmt.Errorf("dockerd: %w", err))
	}
	if err := d.Daemon.Stop(); err != nil {
		t.Error(err)
	}
	unmountBelow(t, d.Dir) // it leaves its network namespaces mounted
}
