package main

import "github.com/engined/engined/proto/errdefs"

var deleteCommand = command{
	name: "delete", args: "<container-id>", min: 1, max: -1,
	bind: func(*flags) action {
		return func(c *call) error { return errdefs.NotImplemented.Errorf("delete: being written") }
	},
}
