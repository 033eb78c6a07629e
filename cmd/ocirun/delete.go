package main

import (
	"context"

	"github.com/engined/engined/libcontainer"
)

var deleteCommand = command{
	name: "delete", args: "<container-id>", min: 1, max: 1,
	usage: "delete any resources held by the container often used with detached container",
	description: `Where "<container-id>" is the name for the instance of the container.

For example, if the container id is "ubuntu01" and ocirun list currently shows the
status of "ubuntu01" as "stopped" the following will delete resources held for
"ubuntu01" removing "ubuntu01" from the ocirun list of containers:

       # ocirun delete ubuntu01`,
	bind: func(f *flags) action {
		force := f.flag("force", "f", "Forcibly deletes the container if it is still running (uses SIGKILL)")
		return func(c *call) error {
			return libcontainer.Delete(context.Background(), c.root, c.args[0], *force)
		}
	},
}
