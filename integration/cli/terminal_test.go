package cli

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/engined/engined/integration/harness"
)

func onStack(t *testing.T, test func(t *testing.T, cli harness.CLI)) {
	stack := harness.New(t, harness.Options{Bridge: true})
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) { test(t, cli.At(t, stack.Host())) })
}

func TestShellOnATerminal(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := harness.OpenTerminal(t, cli.Command(context.Background(), "run", "--rm", "-it", "busybox"), 33, 77)
		term.Expect("# ")
		// The client sets the size after the start; the shell's answer is
		// asked for until it is there.
		term.Say("until stty size | grep '33 77'; do :; done\n")
		term.Expect("\n33 77")
		enough := resizeOften(t, term, 44, 88)
		term.Say("until stty size | grep '44 88'; do :; done\n")
		term.Expect("\n44 88")
		enough()
		term.Say("tty; echo $TERM; exit 5\n")
		term.Expect("/dev/pts/0")
		term.Expect("xterm")
		if status := term.Status(); status != 5 {
			t.Errorf("status %d", status)
		}
	})
}

// resizeOften gives the terminal another size, and that again, until the returned
// function is called: the clients listen for the signal only some time after they
// have set the first size.
func resizeOften(t *testing.T, term *harness.Terminal, rows, columns uint16) (enough func()) {
	t.Helper()
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(100 * time.Millisecond)
		defer again.Stop()
		for {
			for _, columns := range []uint16{columns - 1, columns} { // without a change there is no signal
				if err := term.Resize(rows, columns); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-again.C:
			case <-end:
				return
			}
		}
	}()
	enough = sync.OnceFunc(func() { close(end); <-done })
	t.Cleanup(enough) // the test may fail before it has enough
	return enough
}

func TestInterruptReachesTheForeground(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := harness.OpenTerminal(t, cli.Command(context.Background(), "run", "--rm", "-it", "busybox"), 24, 80)
		term.Expect("# ")
		// The child says it itself: by then it is the terminal's foreground
		// group. Said by the interactive shell, ^C could come before the fork
		// and reach only the shell, which then waits for its child.
		term.Say("/bin/sh -c 'echo wait; sleep 1000'\n")
		term.Expect("\nwait")
		term.Say("\x03")
		term.Expect("# ")
		term.Say("exit 6\n")
		if status := term.Status(); status != 6 {
			t.Errorf("status %d", status)
		}
	})
}

func TestDetachAndAttachAgain(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		term := harness.OpenTerminal(t, cli.Command(context.Background(), "run", "-it", "--name", "shell", "busybox"), 24, 80)
		term.Expect("# ")
		term.Say("kept=alive\n")
		term.Expect("# ")
		term.Say("\x10\x11") // ctrl-p ctrl-q
		if status := term.Status(); status != 0 {
			t.Errorf("status %d after detaching", status)
		}
		if state := cli.Must(t, "inspect", "-f", "{{.State.Status}}", "shell"); state != "running\n" {
			t.Errorf("it is %q after detaching", state)
		}
		again := harness.OpenTerminal(t, cli.Command(context.Background(), "attach", "shell"), 24, 80)
		again.Say("echo still $kept; exit 3\n")
		again.Expect("still alive")
		if status := again.Status(); status != 3 {
			t.Errorf("status %d", status)
		}
		cli.Must(t, "rm", "shell")
	})
}

func TestExecOnATerminal(t *testing.T) {
	onStack(t, func(t *testing.T, cli harness.CLI) {
		cli.Must(t, "run", "-d", "--name", "host", "busybox", "sleep", "1000")
		term := harness.OpenTerminal(t, cli.Command(context.Background(), "exec", "-it", "host", "sh"), 40, 90)
		term.Expect("# ")
		term.Say("until stty size | grep '40 90'; do :; done\n")
		term.Expect("\n40 90")
		term.Say("exit 4\n")
		if status := term.Status(); status != 4 {
			t.Errorf("status %d", status)
		}
		cli.Must(t, "rm", "-f", "host")
	})
}
