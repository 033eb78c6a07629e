package client

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// DefaultHost is where the daemon listens unless DOCKER_HOST says otherwise.
const DefaultHost = "unix:///run/engined.sock"

// session is one call of the command line.
type session struct {
	api *client.Client
	in  io.Reader
	out io.Writer
	err io.Writer
}

// command is a row of the table of commands.
type command struct {
	name  string
	usage string // arguments
	about string
	run   func(ctx context.Context, s *session, f *flags, args []string) error
}

func commands() []command {
	return []command{
		{"run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "create and start a container", run},
		{"create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "create a container", create},
		{"start", "[OPTIONS] CONTAINER [CONTAINER...]", "start containers", start},
		{"attach", "[OPTIONS] CONTAINER", "attach to a running container", attach},
		{"exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "run a command in a running container", execute},
		{"ps", "[OPTIONS]", "list containers", ps},
		{"logs", "[OPTIONS] CONTAINER", "show what a container has written", logs},
		{"inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "show all about containers or images", inspect},
		{"top", "CONTAINER [PS OPTIONS]", "show a container's processes", top},
		{"wait", "CONTAINER [CONTAINER...]", "wait until containers stop, print their exit codes", wait},
		{"stop", "[OPTIONS] CONTAINER [CONTAINER...]", "stop containers", stop},
		{"restart", "[OPTIONS] CONTAINER [CONTAINER...]", "restart containers", restart},
		{"kill", "[OPTIONS] CONTAINER [CONTAINER...]", "kill containers", kill},
		{"pause", "CONTAINER [CONTAINER...]", "freeze containers", pause},
		{"unpause", "CONTAINER [CONTAINER...]", "let frozen containers go on", unpause},
		{"rename", "CONTAINER NEW_NAME", "rename a container", rename},
		{"rm", "[OPTIONS] CONTAINER [CONTAINER...]", "remove containers", remove},
		{"images", "[OPTIONS]", "list images", images},
		{"pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "get an image from a registry", pull},
		{"push", "[OPTIONS] NAME[:TAG]", "send an image to a registry", push},
		{"import", "[OPTIONS] FILE|- [REPOSITORY[:TAG]]", "make an image out of a root file system's tar", importImage},
		{"load", "[OPTIONS]", "load images from a tar", load},
		{"save", "[OPTIONS] IMAGE [IMAGE...]", "write images into a tar", save},
		{"export", "[OPTIONS] CONTAINER", "write a container's root file system into a tar", export},
		{"commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "make an image out of a container", commit},
		{"tag", "IMAGE[:TAG] NAME[:TAG]", "give an image one more name", tag},
		{"history", "[OPTIONS] IMAGE", "show the steps that made an image", history},
		{"rmi", "[OPTIONS] IMAGE [IMAGE...]", "remove images", removeImage},
		{"image prune", "[OPTIONS]", "remove images that nobody uses", pruneImages},
		{"system df", "", "show what takes disk space", diskUsage},
		{"events", "[OPTIONS]", "show what happens", events},
		{"info", "", "describe the engine", info},
		{"version", "", "show versions", version},
	}
}

// Has says whether the command line has a command that begins with that word.
func Has(name string) bool {
	return name == "help" || slices.ContainsFunc(commands(), func(c command) bool { return strings.Fields(c.name)[0] == name })
}

// exit is an error that is only an exit code: what there is to say was said.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs a command and returns its exit code.
func Main(args []string, in io.Reader, out, messages io.Writer) int {
	c, rest := find(args)
	if c.run == nil {
		help(out)
		if args[0] == "help" {
			return 0
		}
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !proxiesSignals(c.name) {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
		defer stop()
	}
	return code(c.name, c.call(ctx, rest, in, out, messages), messages)
}

// find returns the command that the first one or two words name, and what
// follows them. It has no run if there is none.
func find(args []string) (c command, rest []string) {
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c, args[len(words):]
		}
	}
	return command{}, nil
}

// proxiesSignals says whether a command gives signals to its container
// instead of ending.
func proxiesSignals(name string) bool { return name == "run" || name == "attach" || name == "start" }

func (c command) call(ctx context.Context, args []string, in io.Reader, out, messages io.Writer) error {
	api, err := connect()
	if err != nil {
		return err
	}
	defer api.Close()
	f := newFlags(c)
	f.output = messages
	return c.run(ctx, &session{api, in, out, messages}, f, args)
}

func connect() (*client.Client, error) {
	options := []client.Opt{client.FromEnv}
	if os.Getenv(client.EnvOverrideHost) == "" {
		options = append([]client.Opt{client.WithHost(DefaultHost)}, options...)
	}
	return client.New(options...)
}

// code says what went wrong and returns the exit code of that.
func code(name string, err error, messages io.Writer) int {
	var own exit
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &own):
		return int(own)
	case errors.Is(err, context.Canceled):
		return 130 // 128 + INT
	}
	fmt.Fprintf(messages, "engined: %v\n", err)
	if name == "run" {
		return refused
	}
	return 1
}

func help(out io.Writer) {
	fmt.Fprint(out, "Usage: engined COMMAND [ARGUMENTS]\n\nengined without a command is the daemon, see engined --help.\nDOCKER_HOST says where it is (default "+DefaultHost+").\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(out, "  %-11s %s\n", c.name, c.about)
	}
}

// each does something with every argument, prints those that succeeded and
// goes on after one that did not.
func (s *session) each(args []string, do func(ref string) error) error {
	failed := false
	for _, ref := range args {
		if err := do(ref); err != nil {
			fmt.Fprintf(s.err, "engined: %v\n", err)
			failed = true
			continue
		}
		fmt.Fprintln(s.out, ref)
	}
	if failed {
		return exit(1)
	}
	return nil
}
