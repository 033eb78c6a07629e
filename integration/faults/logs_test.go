package faults

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// TestFollowerAcrossRotation: `docker logs -f` gets every line of a burst that
// is many times as long as the files that are kept.
func TestFollowerAcrossRotation(t *testing.T) {
	const lines = 300_000
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{})
	cli = cli.At(t, stack.Host())
	for _, driver := range []string{"json-file", "local"} {
		cli.Must(t, "run", "-d", "--name", "burst", "--net=none", "--log-driver", driver, "--log-opt", "max-size=1m", "--log-opt", "max-file=3", harness.Image,
			"sh", "-c", fmt.Sprintf("echo ready; until test -e /go; do usleep 1000; done; seq %d", lines))
		pid := strings.TrimSpace(cli.Must(t, "inspect", "-f", "{{.State.Pid}}", "burst"))
		ctx, cancel := context.WithTimeout(context.Background(), 2*patient)
		defer cancel()
		cmd := cli.Command(ctx, "logs", "-f", "burst")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		scanner := bufio.NewScanner(out)
		if !scanner.Scan() || scanner.Text() != "ready" {
			t.Fatalf("%s: it begins with %q", driver, scanner.Text())
		}
		if err := os.WriteFile(filepath.Join("/proc", pid, "root/go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		count := 0
		for scanner.Scan() {
			if count++; scanner.Text() != fmt.Sprint(count) {
				t.Fatalf("%s: line %d is %q", driver, count, scanner.Text())
			}
		}
		if err := cmd.Wait(); err != nil || count != lines {
			t.Errorf("%s: %d of %d lines, %v", driver, count, lines, err)
		}
		cli.Must(t, "rm", "burst")
	}
}
