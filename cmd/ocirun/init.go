// The Go runtime would have the number of its threads by its cgroup's limit, and watch
// that: it is nothing to a short-lived process. nsenter/limit.c keeps it from looking at
// all.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	// The stage's constructor: the child that create, run and exec start is
	// this program again, and never reaches main (nsenter/nsexec.c).
	_ "github.com/engined/engined/nsenter"
)
