// Package shim is the parent of one container: it has the runtime start the
// container's processes, carries their input and output, writes their log, and
// collects their exit statuses. proto/shim is its contract with the others.
//
// # One loop
//
// [Shim.Run] is one goroutine around epoll_wait(2); it owns all state, so there
// is no lock. Nothing in it blocks but the disk: descriptors are non-blocking,
// the runtime and gzip are child processes awaited by pidfd. Signals become a
// write to an eventfd, by a handler in assembly.
//
// # Size
//
// What idle shims have each, step by step (KiB of PSS when there are 30 and when
// there are 100, threads):
//
//	os/signal, a P for each of two processors     ~1000          7-8
//	signals by a handler of our own, signals.go    ~990            5
//	GOMAXPROCS=1, kernel files without package os   836    750     4
//	built with GOEXPERIMENT=nogreenteagc              -    687     4
//
// A Go program that only waits has 475 to 510. Lost with os/signal: USR1's stack
// dump comes from the loop, so not while the disk holds it up. A collection costs
// an idle shim 200 KiB and is made only where it pays. Buffers for reading and
// encoding are mapped memory, given back after a second without events.
//
// # Children
//
// The shim is a subreaper: when `RUNTIME run --detach` exits, the container's
// first process becomes its child. Known children are waited for one by one
// when their pidfd says so. Strays, orphans of a container that shares our pid
// namespace, are reaped on SIGCHLD, but never while the runtime is at work: a
// process may be dead before we have read its pid from the pid file.
//
// # Output
//
//	pipe or pty ─> read ─┬─> log file (proto/logfile)
//	                     ├─> each attached client: send, else its queue
//	                     └─> fifos of a gRPC client
//
// Who reads slowly, or not at all, costs a process with a log nothing: what its
// client has not taken waits in memory (memoryLimit), then in a file without a
// name beside the log (spillLimit). Beyond that output is left out for that
// client, which is told how much, in its stream, where the gap is. Only a client
// that the start waited for (`docker run` in a pipeline: its reader is the
// process's own standard output, and must get all) makes the process wait
// there, as long as it goes on reading: at least stallBytes in stallTime.
//
// Without a log there is but a queue in memory (queueLimit). While it is full the
// process waits, and a client that does not read is cut off after stallTime. A
// fifo is a pipe: the process waits for its reader, for ever if need be.
//
// # End of a process
//
// Status collected → output drained → log complete → exit.json → Exited to the
// supervisor → clients' queues sent, connections closed. Who sees the end of the
// stream and asks finds the status.
//
// Absent on purpose: stdin for clients of a terminal that has been closed, and
// retries of a line the disk had no room for. Start reading at run.go, start.go.
package shim
