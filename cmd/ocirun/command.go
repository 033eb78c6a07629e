package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// command is one verb. bind declares its options and returns what runs it
// once they are parsed:
//
//	var startCommand = command{
//		name: "start", args: "<container-id>", min: 1, max: 1,
//		usage: "executes the user defined process in a created container",
//		bind: func(f *flags) action {
//			return func(c *call) error { ... c.args[0] ... }
//		},
//	}
type command struct {
	name        string
	args        string // how help shows the arguments
	usage       string // one line
	description string // paragraphs, optional
	min, max    int    // number of arguments; max -1: no upper limit
	failed      int    // exit status of an error of the action, if not 1
	bind        func(*flags) action
}

type action func(*call) error

// call is one invocation of a verb, its options parsed.
type call struct {
	*globals
	args           []string
	stdout, stderr io.Writer
}

// checkArgs words a wrong number of arguments as runc does.
func (c *command) checkArgs(n int) error {
	switch {
	case c.min == c.max && n != c.min:
		return fmt.Errorf("%s: %q requires exactly %d argument(s)", os.Args[0], c.name, c.min)
	case n < c.min:
		return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", os.Args[0], c.name, c.min)
	case c.max >= 0 && n > c.max:
		return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", os.Args[0], c.name, c.max)
	}
	return nil
}

// flags declares options that have a long and, often, a short name.
type flags struct {
	set   *flag.FlagSet
	lines []helpLine
}

type helpLine struct{ names, usage string }

func newFlags(name string) *flags {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	return &flags{set: set}
}

func (f *flags) parse(args []string) error { return f.set.Parse(args) }

// args returns what follows the options: parsing stops at the first argument
// that is none, so that exec's command keeps its own.
func (f *flags) args() []string { return f.set.Args() }

// given reports whether the option was on the command line, under either name.
func (f *flags) given(long, short string) bool {
	found := false
	f.set.Visit(func(seen *flag.Flag) {
		found = found || seen.Name == long || short != "" && seen.Name == short
	})
	return found
}

// flag declares a boolean option.
func (f *flags) flag(long, short, usage string) *bool {
	to := new(bool)
	f.flagVar(to, long, short, usage)
	return to
}

func (f *flags) flagVar(to *bool, long, short, usage string) {
	f.describe(long, short, "", usage)
	for _, name := range names(long, short) {
		f.set.BoolVar(to, name, *to, "")
	}
}

// text declares an option with a string value.
func (f *flags) text(long, short, value, usage string) *string {
	to := new(string)
	f.textVar(to, long, short, value, usage)
	return to
}

func (f *flags) textVar(to *string, long, short, value, usage string) {
	if value != "" {
		usage += " (default: " + strconv.Quote(value) + ")"
	}
	f.describe(long, short, " value", usage)
	for _, name := range names(long, short) {
		f.set.StringVar(to, name, value, "")
	}
}

// number declares an option with an integer value.
func (f *flags) number(long, short string, value int, usage string) *int {
	to := new(int)
	f.describe(long, short, " value", usage+" (default: "+strconv.Itoa(value)+")")
	for _, name := range names(long, short) {
		f.set.IntVar(to, name, value, "")
	}
	return to
}

// duration declares an option with a value as 5s.
func (f *flags) duration(long string, value time.Duration, usage string) *time.Duration {
	f.describe(long, "", " value", usage+" (default: "+value.String()+")")
	return f.set.Duration(long, value, "")
}

// list declares an option that may be given many times.
func (f *flags) list(long, short, usage string) *[]string {
	to := new([]string)
	f.describe(long, short, " value", usage)
	for _, name := range names(long, short) {
		f.set.Func(name, "", func(value string) error {
			*to = append(*to, value)
			return nil
		})
	}
	return to
}

func (f *flags) describe(long, short, value, usage string) {
	shown := "--" + long + value
	if short != "" {
		shown += ", -" + short + value
	}
	f.lines = append(f.lines, helpLine{shown, usage})
}

func names(long, short string) []string {
	if short == "" {
		return []string{long}
	}
	return []string{long, short}
}

// printHelp prints the verb's help in runc's layout.
func (c *command) printHelp(w io.Writer, f *flags) {
	fmt.Fprintf(w, "NAME:\n   ocirun %s - %s\n\nUSAGE:\n   ocirun %s", c.name, c.usage, c.name)
	if len(f.lines) > 1 {
		fmt.Fprint(w, " [command options]")
	}
	fmt.Fprintf(w, " %s\n", c.args)
	if c.description != "" {
		fmt.Fprintf(w, "\nDESCRIPTION:\n   %s\n", c.description)
	}
	if len(f.lines) > 0 {
		fmt.Fprint(w, "\nOPTIONS:\n")
		printLines(w, f.lines)
	}
}

// printLines prints names and usages as two columns.
func printLines(w io.Writer, lines []helpLine) {
	width := 0
	for _, line := range lines {
		width = max(width, len(line.names))
	}
	for _, line := range lines {
		fmt.Fprintf(w, "   %s%s  %s\n", line.names, strings.Repeat(" ", width-len(line.names)), line.usage)
	}
}

// printHelp prints the help of the whole program.
func printHelp(w io.Writer, top *flags) {
	fmt.Fprint(w, "NAME:\n   ocirun - Open Container Initiative runtime\n\n")
	fmt.Fprint(w, "USAGE:\n   ocirun [global options] command [command options] [arguments...]\n\n")
	fmt.Fprintf(w, "VERSION:\n   %s\n\nCOMMANDS:\n", versionText())
	lines := make([]helpLine, 0, len(commands))
	for _, c := range commands {
		lines = append(lines, helpLine{c.name, c.usage})
	}
	printLines(w, lines)
	fmt.Fprint(w, "\nGLOBAL OPTIONS:\n")
	printLines(w, top.lines)
}

// printHelpFor answers `help`, `help VERB`, --help and an empty command line.
func printHelpFor(stdout, stderr io.Writer, g *globals, top *flags, rest []string) int {
	if len(rest) < 2 {
		printHelp(stdout, top)
		return 0
	}
	verb := findCommand(rest[1])
	if verb == nil {
		return fail(stderr, g, fmt.Errorf("No help topic for '%s'", rest[1]))
	}
	f := newFlags(verb.name)
	verb.bind(f)
	verb.printHelp(stdout, f)
	return 0
}
