package client

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// flags reads a command's options the way docker does: -it is -i -t, -eA=1 is
// -e A=1, and the first argument that is no option ends them. Package flag
// holds the definitions; its own parser knows none of that.
type flags struct {
	set     *flag.FlagSet
	command command
	output  io.Writer
}

func newFlags(c command) *flags {
	return &flags{set: flag.NewFlagSet(c.name, flag.ContinueOnError), command: c, output: io.Discard}
}

// define makes an option with a long name and, unless empty, a short one.
func (f *flags) define(to flag.Value, long, short, usage string) {
	f.set.Var(to, long, usage)
	if short != "" {
		f.set.Var(to, short, "short for --"+long)
	}
}

func (f *flags) truth(to *bool, long, short, usage string) {
	f.set.BoolVar(to, long, *to, usage)
	if short != "" {
		f.set.BoolVar(to, short, *to, "short for --"+long)
	}
}

func (f *flags) text(to *string, long, short, usage string) {
	f.set.StringVar(to, long, *to, usage)
	if short != "" {
		f.set.StringVar(to, short, *to, "short for --"+long)
	}
}

func (f *flags) list(to *[]string, long, short, usage string) {
	f.define((*listValue)(to), long, short, usage)
}

type listValue []string

func (l *listValue) String() string         { return strings.Join(*l, ",") }
func (l *listValue) Set(given string) error { *l = append(*l, given); return nil }

// parse sets the options in args and returns what follows them: at least
// fewest arguments, and at most most unless that is negative.
func (f *flags) parse(args []string, fewest, most int) ([]string, error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		given := args[0]
		args = args[1:]
		if given == "--" {
			break
		}
		if given == "--help" || given == "-h" && f.set.Lookup("h") == nil {
			f.usage()
			return nil, flag.ErrHelp
		}
		var err error
		if long, ok := strings.CutPrefix(given, "--"); ok {
			args, err = f.long(long, args)
		} else {
			args, err = f.short(given[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(args) < fewest || most >= 0 && len(args) > most {
		return nil, fmt.Errorf("%q takes other arguments: engined %s %s", f.command.name, f.command.name, f.command.usage)
	}
	return args, nil
}

func (f *flags) long(name string, rest []string) ([]string, error) {
	name, value, attached := strings.Cut(name, "=")
	found := f.set.Lookup(name)
	if found == nil || len(name) == 1 {
		return nil, fmt.Errorf("unknown flag: --%s: see engined %s --help", name, f.command.name)
	}
	if !attached {
		if isBool(found) {
			value = "true"
		} else if len(rest) == 0 {
			return nil, fmt.Errorf("flag needs an argument: --%s", name)
		} else {
			value, rest = rest[0], rest[1:]
		}
	}
	return rest, f.put(found, "--"+name, value)
}

// short reads letters: any number without a value, the last one maybe with.
func (f *flags) short(letters string, rest []string) ([]string, error) {
	for letters != "" {
		name := letters[:1]
		letters = letters[1:]
		found := f.set.Lookup(name)
		if found == nil {
			return nil, fmt.Errorf("unknown shorthand flag: -%s: see engined %s --help", name, f.command.name)
		}
		value := "true"
		if !isBool(found) {
			if letters == "" && len(rest) == 0 {
				return nil, fmt.Errorf("flag needs an argument: -%s", name)
			}
			if letters == "" {
				letters, rest = rest[0], rest[1:]
			}
			value, letters = strings.TrimPrefix(letters, "="), ""
		}
		if err := f.put(found, "-"+name, value); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (f *flags) put(found *flag.Flag, name, value string) error {
	if err := found.Value.Set(value); err != nil {
		return fmt.Errorf("invalid argument %q for %s: %w", value, name, err)
	}
	return nil
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func (f *flags) usage() {
	fmt.Fprintf(f.output, "Usage: engined %s %s\n\n%s\n", f.command.name, f.command.usage, f.command.about)
	f.set.SetOutput(f.output)
	f.set.PrintDefaults()
}
