// Engined is a container engine with Docker's API; with a command it is its
// own client, or checks its data (fsck). See package engined and package client.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/engined/engined/engined"
	"github.com/engined/engined/engined/client"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "fsck" {
		os.Exit(fsck(args[1:]))
	}
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		if !client.Has(args[0]) {
			fmt.Fprintf(os.Stderr, "engined: %q is not a command: see engined help\n", args[0])
			os.Exit(1)
		}
		os.Exit(client.Main(args, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(daemon(args))
}

// daemon returns the exit code: 2 for a wrong configuration, 1 for a failure.
func daemon(args []string) int {
	config, err := engined.Load(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "engined:", err)
		return 2
	case config.Version:
		fmt.Println("engined version", version)
		return 0
	case config.Validate:
		fmt.Println("configuration OK")
		return 0
	}
	if err := engined.Run(context.Background(), version, config, args); err != nil {
		fmt.Fprintln(os.Stderr, "engined:", err)
		return 1
	}
	return 0
}

// fsck returns the exit code: 2 for a wrong command line, 1 if something wrong
// is left or could not be looked at.
func fsck(args []string) int {
	repair := len(args) > 0 && args[0] == "--repair"
	if repair {
		args = args[1:]
	}
	config, err := engined.Load(args, os.Stderr)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		fmt.Fprintln(os.Stderr, "engined fsck [--repair] [FLAGS OF THE DAEMON]:", err)
		return 2
	}
	left, err := engined.Fsck(context.Background(), config, repair, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "engined fsck:", err)
	}
	if err != nil || left > 0 {
		return 1
	}
	return 0
}
