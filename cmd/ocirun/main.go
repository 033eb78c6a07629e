// ocirun is an OCI runtime with runc's command line: one file per verb.
//
// The command table is made by hand on the standard flag package, on which
// urfave/cli v1, runc's parser, stands too: parsing and its error texts are
// the same. The log is log/slog with a handler of our own. An empty program on
// urfave/cli/v2 and logrus runs 1.8-2.8 ms from fork to exit and has 4.0 MB, on
// flag and slog 1.1-1.4 ms and 2.1 MB (2026-11, means of 200).
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"

	"github.com/engined/engined/libcontainer"
)

// commands is the table of verbs in the order in which help lists them.
var commands = []*command{
	&checkpointCommand,
	&createCommand,
	&deleteCommand,
	&eventsCommand,
	&execCommand,
	&featuresCommand,
	&killCommand,
	&listCommand,
	&pauseCommand,
	&psCommand,
	&restoreCommand,
	&resumeCommand,
	&runCommand,
	&specCommand,
	&startCommand,
	&stateCommand,
	&updateCommand,
}

// globals are the options before the verb.
type globals struct {
	debug         bool
	log           string
	logFormat     string
	root          string
	criu          string
	systemdCgroup bool
	rootless      string // "true", "false" or "auto"
}

// exitStatus is returned by a verb that ends with the status of the
// container's process: ocirun exits with it and prints nothing.
type exitStatus int

func (s exitStatus) Error() string { return "exit status " + strconv.Itoa(int(s)) }

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run carries out one command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	g := globals{}
	top := newFlags(args[0])
	g.bind(top)
	version := top.flag("version", "v", "print the version")
	help := top.flag("help", "h", "show help")
	if err := top.parse(args[1:]); err != nil {
		fmt.Fprintf(stdout, "Incorrect Usage. %v\n\n", err)
		printHelp(stdout, top)
		logToStderr(stderr)
		return fail(stderr, &globals{}, err)
	}
	rest := top.args()
	switch {
	case *version:
		printVersion(stdout)
		return 0
	case *help || len(rest) == 0 || rest[0] == "help" || rest[0] == "h":
		return printHelpFor(stdout, stderr, &g, top, rest)
	}
	closeLog, err := g.openLog(stderr)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	defer closeLog()
	verb := findCommand(rest[0])
	if verb == nil {
		fail(stderr, &g, fmt.Errorf("No help topic for '%s'", rest[0]))
		return 3
	}
	return verb.execute(&g, rest[1:], stdout, stderr)
}

// bind declares the global options.
func (g *globals) bind(f *flags) {
	f.flagVar(&g.debug, "debug", "", "enable debug logging")
	f.textVar(&g.log, "log", "", "", "set the log file to write ocirun logs to (default is '/dev/stderr')")
	f.textVar(&g.logFormat, "log-format", "", "text", "set the log format ('text' (default), or 'json')")
	f.textVar(&g.root, "root", "", libcontainer.DefaultRoot(), "root directory for storage of container state (this should be located in tmpfs)")
	f.textVar(&g.criu, "criu", "", "criu", "path to the criu binary used for checkpoint and restore")
	f.flagVar(&g.systemdCgroup, "systemd-cgroup", "", "enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\" for e.g. \"system.slice:ocirun:434234\"")
	f.textVar(&g.rootless, "rootless", "", "auto", "ignore cgroup permission errors ('true', 'false', or 'auto')")
}

// execute parses the verb's own options and runs it.
func (c *command) execute(g *globals, args []string, stdout, stderr io.Writer) int {
	f := newFlags(c.name)
	action := c.bind(f)
	help := f.flag("help", "h", "show help")
	if err := f.parse(args); err != nil {
		fmt.Fprintf(stdout, "Incorrect Usage: %v\n\n", err)
		c.printHelp(stdout, f)
		return fail(stderr, g, err)
	}
	if *help {
		c.printHelp(stdout, f)
		return 0
	}
	if err := c.checkArgs(len(f.args())); err != nil {
		fmt.Fprint(stdout, "Incorrect Usage.\n\n")
		c.printHelp(stdout, f)
		return fail(stderr, g, err)
	}
	err := action(&call{globals: g, args: f.args(), stdout: stdout, stderr: stderr})
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if err != nil {
		return max(fail(stderr, g, err), c.failed)
	}
	return 0
}

// fail reports err where runc does: in the log, and on standard error too if
// the log is a file. It returns the exit status.
func fail(stderr io.Writer, g *globals, err error) int {
	slog.Error(err.Error(), wireAttrs(err)...)
	if g.log != "" {
		fmt.Fprintln(stderr, err)
	}
	return 1
}

func findCommand(name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}
