package main

import "github.com/engined/engined/proto/errdefs"

var resumeCommand = command{
	name: "resume", args: "<container-id>", min: 1, max: -1,
	bind: func(*flags) action {
		return func(c *call) error { return errdefs.NotImplemented.Errorf("resume: being written") }
	},
}
