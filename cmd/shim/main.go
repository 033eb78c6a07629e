// Command shim is the parent of one container; the supervisor starts it. See
// the packages shim and proto/shim.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/logfile"
	proto "github.com/engined/engined/proto/shim"
	"github.com/engined/engined/shim"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == shim.CompressCommand:
		return logfile.Gzip(os.Stdin, os.Stdout)
	case len(args) != 3:
		return fmt.Errorf("usage: shim ID BUNDLE RUNTIME (started by the supervisor in the container's directory, with a listening socket at descriptor 3)")
	}
	if err := leaveSession(); err != nil {
		return err
	}
	// systemd asks the supervisor whether it is ready; a runtime would let its container
	// answer (sd_notify(3)).
	os.Unsetenv("NOTIFY_SOCKET")
	tune()
	if args[0] == proto.SpareCommand {
		return shim.RunSpare()
	}
	return shim.Run(shim.Config{ID: args[0], Bundle: args[1], Runtime: args[2]})
}

// leaveSession makes a session of the shim's own: the terminal of who started it
// is not its, and its containers' share of the processors is not the supervisor's.
func leaveSession() error {
	if session, err := unix.Getsid(0); err == nil && session == os.Getpid() {
		return nil
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("making a session: %w", err)
	}
	return nil
}

// tune makes an idle shim small: there are as many as containers.
func tune() {
	// One loop: each further P brings caches and a collector's worker. The
	// supervisor has said so before we began, or else we do; the runtimes that we
	// start are not to hear of it.
	os.Unsetenv("GOMAXPROCS")
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(50) // a collection at 2 MiB instead of 4: thousands of execs leave less behind
}
