package harness

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/engined/engined/integration/leftovers"
	"github.com/engined/engined/integration/rootfs"
)

// Image is the name of the image that every stack begins with.
const Image = "busybox:latest"

// leakTimeout bounds how long teardown may go on after the last answer.
const leakTimeout = 10 * time.Second

// Options choose what an instance is made of. The zero value: no bridge, a
// supervisor of the test's own, the busybox image.
type Options struct {
	Bridge        bool     // a bridge of its own and a subnet that nobody uses
	OwnSupervisor bool     // engined starts its supervisor itself
	NoImage       bool     // no busybox image
	Engined       []string // further flags for engined
	Supervisor    []string // further flags for the supervisor
	DataRoot      string   // engined's, if it shall lie elsewhere
}

// Stack is one instance.
type Stack struct {
	Dir        string // all of it lies below
	Socket     string // engined's API
	Bridge     string // name of the bridge, or "none"
	Engined    *Daemon
	Supervisor *Daemon // nil if engined started it

	t       testing.TB
	options Options
	before  []leftovers.Item
	subnet  string
}

// New starts an instance that ends with the test.
func New(t testing.TB, options Options) *Stack {
	t.Helper()
	NeedRoot(t)
	before, err := leftovers.Look()
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{Dir: TempDir(t), Bridge: "none", t: t, options: options, before: before}
	s.Socket = filepath.Join(s.Dir, "e.sock")
	if options.Bridge {
		s.Bridge = leftovers.Prefix + randomHex(3)
		s.subnet = freeSubnet(t)
	}
	t.Cleanup(s.finish)
	s.StartSupervisor()
	s.StartEngined()
	if !options.NoImage {
		s.importBusybox()
	}
	return s
}

// NeedRoot skips the test for other users, and fails it without the binaries.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, name := range []string{"engined", "supervisor", "shim", "ocirun"} {
		if _, err := os.Stat(Binary(name)); err != nil {
			t.Fatalf("%v (make build makes it)", err)
		}
	}
}

// Binary returns the path of one of the four binaries.
func Binary(name string) string {
	if dir := os.Getenv("ENGINED_BIN"); dir != "" {
		return filepath.Join(dir, name)
	}
	return filepath.Join(Root(), "bin", name)
}

// Root returns the top of the source tree: tests run in their package's
// directory.
func Root() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	panic("not in the source tree")
}

// TempDir makes a directory with a short name that leakcheck knows. Unlike
// t.TempDir it is removed only when nothing is mounted below it.
func TempDir(t testing.TB) string {
	t.Helper()
	return tempDir(t, "/tmp")
}

// MemoryDir is a directory in memory, as /run is on most machines.
func MemoryDir(t testing.TB) string {
	t.Helper()
	return tempDir(t, "/dev/shm")
}

func tempDir(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, leftovers.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeUnmounted(t, dir) })
	return dir
}

func removeUnmounted(t testing.TB, dir string) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mountinfo, []byte(" "+dir+"/")) {
		t.Errorf("not removing %s: something is mounted there (%v)", dir, err)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// StartSupervisor starts the supervisor and waits until it answers.
func (s *Stack) StartSupervisor() {
	s.t.Helper()
	if s.options.OwnSupervisor {
		return
	}
	argv := append([]string{Binary("supervisor"), "--listen", s.SupervisorAddress(), "--state-dir", s.StateDir(),
		"--shim", Binary("shim"), "--runtime", Binary("ocirun")}, s.options.Supervisor...)
	s.Supervisor = s.start("supervisor", argv)
}

// StartEngined starts engined and waits until it answers.
func (s *Stack) StartEngined() {
	s.t.Helper()
	argv := []string{Binary("engined"), "-H", "unix://" + s.Socket, "--data-root", s.DataRoot(), "--exec-root", s.ExecRoot(),
		"--pidfile", filepath.Join(s.Dir, "e.pid"), "--config-file", s.configFile(), "--bridge", s.Bridge}
	if s.subnet != "" {
		argv = append(argv, "--bip", s.subnet)
	}
	if !s.options.OwnSupervisor {
		argv = append(argv, "--supervisor", s.SupervisorAddress())
	}
	s.Engined = s.start("engined", append(argv, s.options.Engined...))
	s.Ping()
}

func (s *Stack) start(name string, argv []string) *Daemon {
	s.t.Helper()
	daemon, err := start(name, filepath.Join(s.Dir, name+".log"), argv)
	if err != nil {
		s.t.Fatal(err)
	}
	return daemon
}

// Places of the instance.
func (s *Stack) DataRoot() string          { return cmp.Or(s.options.DataRoot, filepath.Join(s.Dir, "data")) }
func (s *Stack) ExecRoot() string          { return filepath.Join(s.Dir, "x") }
func (s *Stack) StateDir() string          { return filepath.Join(s.Dir, "st") }
func (s *Stack) SupervisorAddress() string { return "unix://" + filepath.Join(s.Dir, "s.sock") }
func (s *Stack) Host() string              { return "unix://" + s.Socket }

func (s *Stack) configFile() string {
	s.t.Helper()
	path := filepath.Join(s.Dir, "daemon.json")
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Client returns a client of the API that is closed with the test.
func (s *Stack) Client(t testing.TB) *client.Client { return newClient(t, s.Host()) }

func newClient(t testing.TB, host string) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Ping waits for engined to be ready: it accepts at once and answers then.
func (s *Stack) Ping() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if _, err := s.Client(s.t).Ping(ctx, client.PingOptions{}); err != nil {
		s.t.Fatalf("ping: %v\n%s", err, s.Engined.tail())
	}
}

func (s *Stack) importBusybox() {
	s.t.Helper()
	if err := importBusybox(s.Client(s.t)); err != nil {
		s.t.Fatal(err)
	}
}

func importBusybox(c *client.Client) error {
	var image bytes.Buffer
	if err := rootfs.Tar(&image); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := c.ImageImport(ctx, client.ImageImportSource{Source: &image, SourceName: "-"}, Image,
		client.ImageImportOptions{Changes: rootfs.Changes})
	if err != nil {
		return fmt.Errorf("importing busybox: %w", err)
	}
	defer answer.Close()
	said, err := io.ReadAll(answer)
	if err != nil || bytes.Contains(said, []byte(`"error"`)) {
		return fmt.Errorf("importing busybox: %w: %s", err, said)
	}
	return nil
}

func randomHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw)
	return hex.EncodeToString(raw)
}

// freeSubnet returns the address of a bridge in a /24 that no link uses.
func freeSubnet(t testing.TB) string {
	t.Helper()
	used, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for third := int(randomByte()); ; third++ {
		prefix := fmt.Sprintf("10.213.%d.", third%256)
		taken := false
		for _, addr := range used {
			taken = taken || strings.HasPrefix(addr.String(), prefix)
		}
		if !taken {
			return prefix + "1/24"
		}
	}
}

func randomByte() byte {
	var b [1]byte
	_, _ = rand.Read(b[:])
	return b[0]
}
