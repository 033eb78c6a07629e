package main

import (
	"context"
	"os"

	"github.com/engined/engined/libcontainer"
)

var startCommand = command{
	name: "start", args: "<container-id>", min: 1, max: 1,
	usage:       "executes the user defined process in a created container",
	description: "The start command executes the user defined process in a created container.",
	bind: func(*flags) action {
		return func(c *call) error {
			container, err := libcontainer.Open(c.root, c.args[0])
			if err != nil {
				return err
			}
			return libcontainer.Start(context.Background(), container, libcontainer.StartOptions{NotifySocket: os.Getenv("NOTIFY_SOCKET")})
		}
	},
}
