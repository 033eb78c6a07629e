// The Go runtime would read the host's cgroup files at each start to find its
// number of threads, and watch them: that is nothing to a short-lived process.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	// The stage's constructor: the child that create, run and exec start is
	// this program again, and never reaches main (nsenter/nsexec.c).
	_ "github.com/engined/engined/nsenter"
)
