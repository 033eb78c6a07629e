package main

import (
	"context"

	"github.com/engined/engined/libcontainer"
)

var resumeCommand = command{
	name: "resume", args: "<container-id>", min: 1, max: 1,
	usage: "resumes all processes that have been previously paused",
	description: `The resume command resumes all processes in the instance of the container.

Use ocirun list to identify instances of containers and their current status.`,
	bind: func(*flags) action {
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			return libcontainer.Resume(context.Background(), container)
		}
	},
}
