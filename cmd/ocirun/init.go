package main

import (
	// The stage's constructor: the child that create, run and exec start is
	// this program again, and never reaches main (nsenter/nsexec.c).
	_ "github.com/engined/engined/nsenter"
)
