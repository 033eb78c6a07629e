package main

import "github.com/engined/engined/proto/errdefs"

// Whoever writes create.go, start.go, run.go or exec.go deletes its line here.
var (
	createCommand = pending("create")
	startCommand  = pending("start")
	runCommand    = pending("run")
	execCommand   = pending("exec")
)

func pending(name string) command {
	return command{name: name, max: -1, bind: func(*flags) action {
		return func(*call) error { return errdefs.NotImplemented.Errorf("%s: being written", name) }
	}}
}
