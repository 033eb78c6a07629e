package perf

import (
	"fmt"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

// TestEngines measures `docker run --rm --net=none` by one stock client on
// engined and on Debian's dockerd.
func TestEngines(t *testing.T) {
	cli := harness.AnyCLI(t)
	stack := harness.New(t, harness.Options{})
	reference := harness.NewDockerd(t)
	contenders := []contender{
		runBy(t, "engined", cli.At(t, stack.Host())),
		runBy(t, "dockerd", cli.At(t, reference.Host())),
	}
	show(t, "docker run --rm --net=none busybox true, back to back", 40, 0, contenders)
	show(t, "docker run --rm --net=none busybox true, 150 ms idle between", 20, 150*time.Millisecond, contenders)
}

func runBy(t *testing.T, name string, cli harness.CLI) contender {
	return contender{name: name, once: func() error {
		result := cli.Run(t, "run", "--rm", "--net=none", harness.Image, "true")
		if result.Status != 0 {
			return fmt.Errorf("status %d: %s", result.Status, result.Stderr)
		}
		return nil
	}}
}
