package main

import (
	"context"

	"github.com/engined/engined/libcontainer"
)

var killCommand = command{
	name: "kill", args: "<container-id> [signal]", min: 1, max: 2,
	usage: "kill sends the specified signal (default: SIGTERM) to the container's init process",
	description: `Where "<container-id>" is the name for the instance of the container and
"[signal]" is the signal to be sent to the init process.

For example, if the container id is "ubuntu01" the following will send a "KILL"
signal to the init process of the "ubuntu01" container:

       # ocirun kill ubuntu01 KILL`,
	bind: func(f *flags) action {
		all := f.flag("all", "a", "send the specified signal to all processes inside the container")
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			text := "SIGTERM"
			if len(c.args) > 1 && c.args[1] != "" {
				text = c.args[1]
			}
			signal, err := libcontainer.ParseSignal(text)
			if err != nil {
				return err
			}
			if *all {
				return libcontainer.KillAll(context.Background(), container, signal)
			}
			return libcontainer.Kill(context.Background(), container, signal)
		}
	},
}
