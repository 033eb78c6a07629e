package main

import "github.com/engined/engined/proto/errdefs"

var featuresCommand = command{
	name: "features", args: "<container-id>", min: 1, max: -1,
	bind: func(*flags) action {
		return func(c *call) error { return errdefs.NotImplemented.Errorf("features: being written") }
	},
}
