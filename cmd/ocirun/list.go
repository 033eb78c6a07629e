package main

import "github.com/engined/engined/proto/errdefs"

var listCommand = command{
	name: "list", args: "<container-id>", min: 1, max: -1,
	bind: func(*flags) action {
		return func(c *call) error { return errdefs.NotImplemented.Errorf("list: being written") }
	},
}
