package harness

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/bundle"
)

// commandTimeout bounds one command of a command line client.
var commandTimeout = bundle.Patience(60 * time.Second)

// CLI is a command line client of an engine: a stock docker, or engined's own.
type CLI struct {
	Path    string
	Version string // as 28.2.2; "built-in" for engined's own

	host, home string
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Status         int // -1 if a signal ended it
}

// StockCLIs returns the paths and versions of the docker clients installed
// here, one for each version.
func StockCLIs() []CLI {
	var found []CLI
	seen := map[string]bool{}
	for _, path := range []string{"/usr/local/bin/docker", "/usr/bin/docker"} {
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			continue
		}
		// Docker version 20.10.24+dfsg1, build 297e128
		_, rest, _ := strings.Cut(string(out), "version ")
		version, _, _ := strings.Cut(rest, ",")
		if version, _, _ = strings.Cut(version, "+"); !seen[version] {
			seen[version] = true
			found = append(found, CLI{Path: path, Version: version})
		}
	}
	return found
}

// EachCLI runs a test once with every stock docker client; it is skipped if
// there is none.
func EachCLI(t *testing.T, test func(t *testing.T, cli CLI)) {
	clis := StockCLIs()
	if len(clis) == 0 {
		t.Skip("no docker command line client is installed")
	}
	for _, cli := range clis {
		t.Run("docker-"+cli.Version, func(t *testing.T) { test(t, cli) })
	}
}

// At returns the client pointed at an engine, with a home directory of its own.
func (c CLI) At(t testing.TB, host string) CLI {
	c.host, c.home = host, t.TempDir()
	return c
}

// Command prepares a command; for terminals and long-running ones.
func (c CLI) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Path, args...)
	cmd.Env = c.env()
	return cmd
}

func (c CLI) env() []string {
	return []string{"PATH=" + filepath.Dir(c.Path) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + c.home, "DOCKER_CONFIG=" + c.home, "DOCKER_HOST=" + c.host, "TERM=xterm", "DOCKER_CLI_HINTS=false"}
}

// Run runs one command without standard input.
func (c CLI) Run(t testing.TB, args ...string) Result {
	t.Helper()
	return c.run(t, exec.Command(c.Path, args...))
}

// Shell runs a line of shell in which `docker` is this client.
func (c CLI) Shell(t testing.TB, line string) Result {
	t.Helper()
	return c.run(t, exec.Command("/bin/sh", "-c", line))
}

func (c CLI) run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &stdout, &stderr, c.env()
	cmd.WaitDelay = time.Second
	expired := time.AfterFunc(commandTimeout, func() { _ = cmd.Process.Kill() })
	err := cmd.Run()
	if !expired.Stop() {
		t.Errorf("%v: not done after %s", cmd.Args, commandTimeout)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Must runs a command that has to succeed and returns its output.
func (c CLI) Must(t testing.TB, args ...string) string {
	t.Helper()
	result := c.Run(t, args...)
	if result.Status != 0 {
		t.Fatalf("docker %s: exit status %d\n%s%s", strings.Join(args, " "), result.Status, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// BuiltIn returns engined's own command line.
func BuiltIn() CLI { return CLI{Path: Binary("engined"), Version: "built-in"} }

// AnyCLI returns a stock docker client, or skips the test.
func AnyCLI(t testing.TB) CLI {
	t.Helper()
	clis := StockCLIs()
	if len(clis) == 0 {
		t.Skip("no docker command line client is installed")
	}
	return clis[0]
}

// Executable reports whether a program is installed, by its path.
func Executable(path string) bool {
	stat, err := os.Stat(path)
	return err == nil && stat.Mode().IsRegular() && stat.Mode()&0o111 != 0
}
