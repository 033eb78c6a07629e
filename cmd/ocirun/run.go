package main

import (
	"context"
	"fmt"

	"github.com/engined/engined/libcontainer"
)

var runCommand = command{
	name: "run", args: "<container-id>", min: 1, max: 1,
	usage:       "create and run a container",
	description: "The run command creates an instance of a container for a bundle, starts it and,\nunless it is detached, waits for its end and deletes it.",
	bind: func(f *flags) action {
		create := bindCreate(f)
		detach := f.flag("detach", "d", "detach from the container's process")
		keep := f.flag("keep", "", "do not delete the container after it exits")
		noSubreaper := f.flag("no-subreaper", "", "disable the use of the subreaper used to reap reparented processes")
		return func(c *call) error {
			opts := libcontainer.RunOptions{Detach: *detach, Keep: *keep, NoSubreaper: *noSubreaper}
			var err error
			if opts.CreateOptions, err = create.of(c); err != nil {
				return err
			}
			status, err := libcontainer.Run(context.Background(), opts)
			if err != nil {
				return fmt.Errorf("ocirun run failed: %w", err)
			}
			return asExit(status)
		}
	},
}

// asExit makes the process's status ours.
func asExit(status int) error {
	if status == 0 {
		return nil
	}
	return exitStatus(status)
}
