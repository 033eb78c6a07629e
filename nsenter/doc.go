// Package nsenter is the boundary between Go, which decides, and the C stage,
// which acts: the plan of operations that a new process applies to itself
// between clone and execve.
//
// plan.h is the one definition of operations and layouts; the C compiler and,
// by cgo, the Go compiler read it. plan.go encodes and prints plans. The C
// files apply them: nsexec.c (start, messages, dispatch), path.c (paths inside
// the root), mount.c (the root), process.c (the process) and hook.c (programs of the
// image that come before it). signals.c, begin.c, limit.c, watcher.c, pages.c and
// processor.c are for the parent: what an attached run passes on is noted, and Go is
// started with one processor, no search for a limit to it, a watcher that sleeps and,
// where page faults are dear, its heap in a huge page, the program mapped and all
// threads in one place.
//
// A program that links this package runs the stage, instead of its main, when
// its environment is nothing but [Marker]: a constructor sees to it before the
// Go runtime starts. Otherwise the constructor compares one string.
//
// Absent on purpose: any decision. What is done, and in which order, is in
// package libcontainer and its rootfs.
package nsenter
