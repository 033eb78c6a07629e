package debian

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

const (
	suite   = "bookworm"
	patient = 10 * time.Minute
)

func TestDebian(t *testing.T) {
	cli := harness.AnyCLI(t)
	harness.NeedRoot(t)
	tarball := rootFileSystem(t)
	stack := harness.New(t, harness.Options{})
	cli = cli.At(t, stack.Host())
	cli.Must(t, "import", tarball, "debian:"+suite)
	if out := cli.Must(t, "run", "--rm", "debian:"+suite, "apt-get", "--version"); !strings.HasPrefix(out, "apt ") {
		t.Errorf("apt-get --version: %q", out)
	}
	shell := harness.OpenTerminal(t, cli.Command(context.Background(), "run", "--rm", "-it", "debian:"+suite, "bash"), 24, 80)
	shell.Expect("# ")
	shell.Say("dpkg --print-architecture; id -un\n")
	shell.Expect("root")
	shell.Say("su -s /bin/bash -c 'echo $(id -un) > /tmp/who' nobody; cat /tmp/who; exit 4\n")
	shell.Expect("nobody")
	if status := shell.Status(); status != 4 {
		t.Errorf("status %d", status)
	}
	out := cli.Must(t, "run", "--rm", "debian:"+suite, "bash", "-c", "perl -e 'print 6*7' && ls -l /usr/bin/passwd | cut -c1-10")
	if out != "42-rwsr-xr-x\n" {
		t.Errorf("perl and a setuid file: %q", out)
	}
}

// rootFileSystem returns the cached tarball, making it first if need be.
func rootFileSystem(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache"
	}
	tarball := filepath.Join(cache, "engined", "debian-"+suite+".tar")
	if _, err := os.Stat(tarball); err == nil {
		return tarball
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		t.Skip("debootstrap is not installed")
	}
	if err := os.MkdirAll(filepath.Dir(tarball), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap(t, tarball); err != nil {
		t.Skipf("debootstrap makes no %s here: %v", suite, err)
	}
	return tarball
}

func bootstrap(t *testing.T, tarball string) error {
	dir := filepath.Join(harness.TempDir(t), "root")
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	args := []string{"--variant=minbase", suite, dir}
	if mirror := mirror(); mirror != "" {
		args = append(args, mirror)
	}
	if out, err := exec.CommandContext(ctx, "debootstrap", args...).CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(lastLine(string(out))))
	}
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "--exclude=./var/cache/apt/archives/*.deb", "--one-file-system", "-cf", tarball+".new", ".").CombinedOutput(); err != nil {
		return errors.Join(err, errors.New(string(out)))
	}
	return os.Rename(tarball+".new", tarball)
}

// mirror returns the archive that this machine itself uses.
func mirror() string {
	sources, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, file := range append(sources, "/etc/apt/sources.list") {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if address := addressOf(line); address != "" {
				return address
			}
		}
	}
	return ""
}

// addressOf finds the archive's address in a line of either format of
// sources.list(5); the one of security updates is no whole archive.
func addressOf(line string) string {
	if strings.HasPrefix(line, "#") || strings.Contains(line, "security") {
		return ""
	}
	for _, word := range strings.Fields(line) {
		if strings.HasPrefix(word, "http") {
			return word
		}
	}
	return ""
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
