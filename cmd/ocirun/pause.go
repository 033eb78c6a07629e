package main

import (
	"context"

	"github.com/engined/engined/libcontainer"
)

var pauseCommand = command{
	name: "pause", args: "<container-id>", min: 1, max: 1,
	usage: "pause suspends all processes inside the container",
	description: `The pause command suspends all processes in the instance of the container.

Use ocirun list to identify instances of containers and their current status.`,
	bind: func(*flags) action {
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			return libcontainer.Pause(context.Background(), container)
		}
	},
}
