package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/proto/errdefs"
)

var execCommand = command{
	name: "exec", args: "<container-id> <command> [command options]  || -p process.json <container-id>", min: 1, max: -1,
	failed:      255, // as runc: 1 may be the process's own
	usage:       "execute new process inside the container",
	description: "The exec command starts a further process in a running container.",
	bind: func(f *flags) action {
		e := bindExec(f)
		return func(c *call) error {
			status, err := e.run(c)
			if err != nil {
				return fmt.Errorf("exec failed: %w", err)
			}
			return asExit(status)
		}
	},
}

// execFlags are exec's options.
type execFlags struct {
	flags                                                                    *flags
	consoleSocket, cwd, user, process, pidFile, label, apparmor, pidfdSocket *string
	env, gids, caps, cgroups                                                 *[]string
	tty, detach, noNewPrivs, ignorePaused                                    *bool
	preserveFDs                                                              *int
}

func bindExec(f *flags) *execFlags {
	return &execFlags{
		flags:         f,
		consoleSocket: f.text("console-socket", "", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"),
		pidfdSocket:   f.text("pidfd-socket", "", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the exec process"),
		cwd:           f.text("cwd", "", "", "current working directory in the container"),
		env:           f.list("env", "e", "set environment variables"),
		tty:           f.flag("tty", "t", "allocate a pseudo-TTY"),
		user:          f.text("user", "u", "", "UID (format: <uid>[:<gid>])"),
		gids:          f.list("additional-gids", "g", "additional gids"),
		process:       f.text("process", "p", "", "path to the process.json"),
		detach:        f.flag("detach", "d", "detach from the container's process"),
		pidFile:       f.text("pid-file", "", "", "specify the file to write the process id to"),
		label:         f.text("process-label", "", "", "set the asm process label for the process commonly used with selinux"),
		apparmor:      f.text("apparmor", "", "", "set the apparmor profile for the process"),
		noNewPrivs:    f.flag("no-new-privs", "", "set the no new privileges value for the process"),
		caps:          f.list("cap", "c", "add a capability to the bounding set for the process"),
		preserveFDs:   f.number("preserve-fds", "", 0, "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)"),
		cgroups:       f.list("cgroup", "", "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>"),
		ignorePaused:  f.flag("ignore-paused", "", "allow exec in a paused container"),
	}
}

func (e *execFlags) run(c *call) (int, error) {
	container, err := libcontainer.Open(c.root, c.args[0])
	switch {
	case err != nil:
		return 0, err
	case len(c.args) < 2 && *e.process == "":
		return 0, errdefs.InvalidArgument.Errorf("process args cannot be empty")
	case *e.preserveFDs < 0:
		return 0, errdefs.InvalidArgument.Errorf("--preserve-fds: expected 0 or more, got %d", *e.preserveFDs)
	}
	cgroups, err := subCgroups(*e.cgroups)
	if err != nil {
		return 0, err
	}
	opts := libcontainer.ExecOptions{
		Terminal: *e.tty, ConsoleSocket: *e.consoleSocket, PidfdSocket: *e.pidfdSocket, Cgroups: cgroups, PidFile: *e.pidFile,
		PreserveFDs: *e.preserveFDs, Detach: *e.detach, IgnorePaused: *e.ignorePaused,
		Process: func(spec *specs.Spec) (*specs.Process, error) {
			spec.Process.Args = c.args[1:]
			spec.Process.Terminal = *e.tty
			return spec.Process, e.change(spec.Process)
		},
	}
	if *e.process != "" {
		process, err := readProcess(*e.process)
		if err != nil {
			return 0, err
		}
		opts.Terminal = process.Terminal
		opts.Process = func(spec *specs.Spec) (*specs.Process, error) {
			inherit(process, spec.Process)
			return process, nil
		}
	}
	return libcontainer.Exec(context.Background(), container, opts)
}

// inherit gives a process of --process what it does not say, from the container's.
func inherit(p, from *specs.Process) {
	if from == nil {
		return
	}
	p.Capabilities = cmp.Or(p.Capabilities, from.Capabilities)
	p.OOMScoreAdj = cmp.Or(p.OOMScoreAdj, from.OOMScoreAdj)
	p.Scheduler = cmp.Or(p.Scheduler, from.Scheduler)
	p.IOPriority = cmp.Or(p.IOPriority, from.IOPriority)
	p.ExecCPUAffinity = cmp.Or(p.ExecCPUAffinity, from.ExecCPUAffinity)
	p.ApparmorProfile = cmp.Or(p.ApparmorProfile, from.ApparmorProfile)
	p.SelinuxLabel = cmp.Or(p.SelinuxLabel, from.SelinuxLabel)
	p.User.Umask = cmp.Or(p.User.Umask, from.User.Umask)
	if len(p.Rlimits) == 0 {
		p.Rlimits = from.Rlimits
	}
}

// readProcess reads the file of --process.
func readProcess(path string) (*specs.Process, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	process := new(specs.Process)
	if err := plainjson.Unmarshal(data, process); err != nil {
		return nil, errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "process", "parsing %s: %w", path, err)
	}
	return process, nil
}

// change applies the options to the container's process.
func (e *execFlags) change(p *specs.Process) error {
	if *e.cwd != "" {
		p.Cwd = *e.cwd
	}
	if *e.apparmor != "" {
		p.ApparmorProfile = *e.apparmor
	}
	if *e.label != "" {
		p.SelinuxLabel = *e.label
	}
	if e.flags.given("no-new-privs", "") {
		p.NoNewPrivileges = *e.noNewPrivs
	}
	p.Env = append(p.Env, *e.env...)
	addCapabilities(p, *e.caps)
	if err := setUser(&p.User, *e.user); err != nil {
		return err
	}
	for _, gid := range *e.gids {
		number, err := strconv.ParseUint(gid, 10, 32)
		if err != nil {
			return errdefs.InvalidArgument.Errorf("parsing %s as int for additional gid failed: %w", gid, err)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(number))
	}
	return nil
}

// addCapabilities gives each to the sets that runc gives it: never to the inheritable
// one, and to the ambient one, which can have only what is inheritable, if there is any.
func addCapabilities(p *specs.Process, caps []string) {
	if len(caps) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	sets := []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted}
	if p.Capabilities.Inheritable != nil {
		sets = append(sets, &p.Capabilities.Ambient)
	}
	for _, set := range sets {
		for _, capability := range caps {
			if !slices.Contains(*set, capability) {
				*set = append(*set, capability)
			}
		}
	}
}

// setUser reads --user, uid[:gid].
func setUser(user *specs.User, text string) error {
	if text == "" {
		return nil
	}
	uid, gid, both := strings.Cut(text, ":")
	number, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return errdefs.InvalidArgument.Errorf("parsing %s as int for uid failed: %w", uid, err)
	}
	user.UID = uint32(number)
	if !both {
		return nil
	}
	if number, err = strconv.ParseUint(gid, 10, 32); err != nil {
		return errdefs.InvalidArgument.Errorf("parsing %s as int for gid failed: %w", gid, err)
	}
	user.GID = uint32(number)
	return nil
}

// subCgroups reads --cgroup: [controller[,controller...]:]path.
func subCgroups(args []string) (map[string]string, error) {
	paths := make(map[string]string, len(args))
	for _, arg := range args {
		controllers, path, both := strings.Cut(arg, ":")
		switch {
		case !both && len(args) > 1:
			return nil, errdefs.InvalidArgument.Errorf("invalid --cgroup argument: %s (missing <controller>: prefix)", arg)
		case !both:
			return map[string]string{"": arg}, nil
		case strings.Contains(path, ":"):
			return nil, errdefs.InvalidArgument.Errorf("invalid --cgroup argument: %s", arg)
		}
		for _, controller := range strings.Split(controllers, ",") {
			if _, twice := paths[controller]; twice {
				return nil, errdefs.InvalidArgument.Errorf("invalid --cgroup argument(s): controller %s specified multiple times", controller)
			}
			paths[controller] = path
		}
	}
	return paths, nil
}
