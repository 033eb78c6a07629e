// Command summary runs `go test -json` commands one after another, shows the
// output of what failed and ends in one line with the totals.
//
//	summary -- go test -json ./a/... -- go test -json ./b/...
//
// It exits 1 if a test, a build or a command failed, or if no test ran.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

func main() {
	commands := split(os.Args[1:])
	if len(commands) == 0 {
		fmt.Fprintln(os.Stderr, "usage: summary -- COMMAND... [-- COMMAND...]")
		os.Exit(2)
	}
	began := time.Now()
	total := newTally(os.Stdout)
	for _, command := range commands {
		if err := run(command, total); err != nil {
			total.broken(err)
		}
	}
	total.report(time.Since(began))
	if !total.good() {
		os.Exit(1)
	}
}

// split cuts the arguments at each "--".
func split(args []string) [][]string {
	var commands [][]string
	for _, arg := range args {
		if arg == "--" {
			commands = append(commands, nil)
			continue
		}
		if len(commands) == 0 {
			return nil
		}
		last := len(commands) - 1
		commands[last] = append(commands[last], arg)
	}
	return commands
}

// run feeds one command's events to the tally. A status other than 0 that no
// event explains is an error.
func run(command []string, total *tally) error {
	if len(command) == 0 {
		return fmt.Errorf("empty command between two --")
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failedBefore := total.failed
	readErr := total.read(events)
	if readErr != nil {
		_, _ = io.Copy(io.Discard, events) // let the command end by itself
	}
	waitErr := cmd.Wait()
	if readErr != nil {
		return readErr
	}
	if waitErr != nil && total.failed == failedBefore {
		return fmt.Errorf("%v: %w", command, waitErr)
	}
	return nil
}
