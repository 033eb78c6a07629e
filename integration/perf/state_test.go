package perf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// TestSupervisorCrowded creates hundreds of containers at once and measures
// State meanwhile, of the busy supervisor and of one that does nothing: what the
// second takes is the machine's.
func TestSupervisorCrowded(t *testing.T) {
	many := 20
	if *full {
		many = 800
	}
	busy, idle := harness.New(t, harness.Options{NoImage: true}), harness.New(t, harness.Options{NoImage: true})
	client := dial(t, busy)
	asking := []*asker{ask(t, "idle one, all", idle, ""), ask(t, "busy one, all", busy, ""), ask(t, "busy one, of one", busy, crowdID(0))}
	began := time.Now()
	throng(t, client, many)
	took := time.Since(began)
	var results []measured
	for _, one := range asking {
		results = append(results, measured{name: one.name, times: one.stop(t)})
	}
	if *full {
		fmt.Printf("\n%d CreateContainer at once: %v\n", many, took)
		for _, r := range results {
			fmt.Printf("  State of the %s: N %d, median %.2f ms, p99 %.2f ms\n", r.name, len(r.times),
				milliseconds(quantile(r.times, 0.5)), milliseconds(quantile(r.times, 0.99)))
		}
	}
}

// askVariable makes this test binary one that asks the supervisor at its value.
const askVariable = "PERF_ASK"

// asker is a process that asks for State all the time. It goes before all others,
// so that what it measures is how long the supervisor takes and not how long
// itself waits for a processor.
type asker struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	out   bytes.Buffer
}

func ask(t *testing.T, name string, stack *harness.Stack, id string) *asker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{name: name, cmd: exec.Command(self, id)}
	a.cmd.Env = append(os.Environ(), askVariable+"="+stack.SupervisorAddress(), "GOMAXPROCS=1")
	a.cmd.Stdout, a.cmd.Stderr = &a.out, os.Stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.stdin.Close(); a.cmd.Wait() }) //nolint:errcheck // stop has said it
	return a
}

// stop ends the asking and returns how long each State took, sorted.
func (a *asker) stop(t *testing.T) (times []time.Duration) {
	t.Helper()
	if err := errors.Join(a.stdin.Close(), a.cmd.Wait(), json.Unmarshal(a.out.Bytes(), &times)); err != nil {
		t.Fatalf("asking the %s: %v", a.name, err)
	}
	slices.Sort(times)
	return times
}

// askUntilEOF is the asker's main: State every 5 ms until its stdin is closed.
// Before the container is there, State of it is answered with an error, which
// counts as well.
func askUntilEOF(address, id string) error {
	// Without autogroup there is the nice value alone.
	_ = os.WriteFile("/proc/self/autogroup", []byte("-20"), 0)
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -20); err != nil {
		return err
	}
	client, err := api.Dial(context.Background(), address)
	if err != nil {
		return err
	}
	defer client.Close()
	over := make(chan struct{})
	go func() {
		defer close(over)
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // either way it is over
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	for {
		select {
		case <-over:
			return json.NewEncoder(os.Stdout).Encode(took)
		case <-tick.C:
		}
		began := time.Now()
		_, err := client.State(context.Background(), &api.StateRequest{Id: id})
		if err != nil && id == "" {
			return err
		}
		took = append(took, time.Since(began))
	}
}
