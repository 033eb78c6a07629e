package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/engined/engined/libcontainer"
	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/proto/errdefs"
)

var createCommand = command{
	name: "create", args: "<container-id>", min: 1, max: 1,
	usage:       "create a container",
	description: "The create command creates an instance of a container for a bundle. The bundle\nis a directory with a specification file named \"config.json\" and a root\nfilesystem. The container's process waits for the start command.",
	bind: func(f *flags) action {
		opts := bindCreate(f)
		dryRun := f.flag("dry-run", "", "print the plan of the container's process and create nothing")
		return func(c *call) error {
			made, err := opts.of(c)
			if err != nil {
				return err
			}
			if *dryRun {
				return printPlan(c, made)
			}
			if _, err := libcontainer.Create(context.Background(), made); err != nil {
				return fmt.Errorf("ocirun create failed: %w", err)
			}
			return nil
		}
	},
}

func printPlan(c *call, opts libcontainer.CreateOptions) error {
	plan, err := libcontainer.DryRun(opts)
	if err != nil {
		return fmt.Errorf("ocirun create failed: %w", err)
	}
	_, err = io.WriteString(c.stdout, plan)
	return err
}

// createFlags are the options that create and run share.
type createFlags struct {
	bundle, consoleSocket, pidfdSocket, pidFile *string
	noPivot, noNewKeyring                       *bool
	preserveFDs                                 *int
}

func bindCreate(f *flags) createFlags {
	return createFlags{
		bundle:        f.text("bundle", "b", "", "path to the root of the bundle directory, defaults to the current directory"),
		consoleSocket: f.text("console-socket", "", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's pseudoterminal"),
		pidfdSocket:   f.text("pidfd-socket", "", "", "path to an AF_UNIX socket which will receive a file descriptor referencing the init process"),
		pidFile:       f.text("pid-file", "", "", "specify the file to write the process id to"),
		noPivot:       f.flag("no-pivot", "", "do not use pivot root to jail process inside rootfs. This should be used whenever the rootfs is on top of a ramdisk"),
		noNewKeyring:  f.flag("no-new-keyring", "", "do not create a new session keyring for the container. This will cause the container to inherit the calling processes session key"),
		preserveFDs:   f.number("preserve-fds", "", 0, "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)"),
	}
}

// of returns the options of one call.
func (f createFlags) of(c *call) (libcontainer.CreateOptions, error) {
	rootless, err := c.isRootless()
	if err != nil {
		return libcontainer.CreateOptions{}, err
	}
	opts := libcontainer.CreateOptions{
		Root: c.root, ID: c.args[0], Bundle: *f.bundle, ConsoleSocket: *f.consoleSocket, PidfdSocket: *f.pidfdSocket, PidFile: *f.pidFile,
		PreserveFDs: *f.preserveFDs, NoPivot: *f.noPivot, NoNewKeyring: *f.noNewKeyring,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), // sd_notify(3)
		Cgroup:       cgroup.Options{Systemd: c.systemdCgroup, Rootless: rootless},
	}
	if opts.PreserveFDs < 0 {
		return opts, errdefs.InvalidArgument.Errorf("--preserve-fds: expected 0 or more, got %d", opts.PreserveFDs)
	}
	return opts, nil
}

// isRootless decides what --rootless leaves open.
func (g *globals) isRootless() (bool, error) {
	if g.rootless == "" || strings.EqualFold(g.rootless, "auto") {
		return os.Geteuid() != 0, nil
	}
	rootless, err := strconv.ParseBool(g.rootless)
	if err != nil {
		return false, errdefs.InvalidArgument.Errorf("--rootless: expected true, false or auto, got %q", g.rootless)
	}
	return rootless, nil
}
