package main

import "github.com/engined/engined/proto/errdefs"

var psCommand = command{
	name: "ps", args: "<container-id>", min: 1, max: -1,
	bind: func(*flags) action {
		return func(c *call) error { return errdefs.NotImplemented.Errorf("ps: being written") }
	},
}
