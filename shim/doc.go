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
// Who reads slowly, or not at all, costs a process with a log nothing; what a
// client has not taken, and who is waited for after all: spill.go.
//
// # End of a process
//
// Status collected → output drained → log complete → exit.json → Exited to the
// supervisor → clients' queues sent, connections closed. Who sees the end of the
// stream and asks finds the status.
//
// # Its own death
//
// kill -9 of a shim ends its container: the supervisor kills what is left and
// writes lost.json (137, with the reason). Could the process go on, and its
// status still be collected? Tried, on Linux 6.18 (2026-11-21):
//
//   - a process survives its shim and goes to the next subreaper above it. If the
//     supervisor is one and the shim's parent, wait4 there gives the status; after
//     a restart of the supervisor it is no ancestor any more, and PID 1 gets it.
//   - a pidfd opened before gives the end to anybody (poll), and since Linux 6.15
//     the status too (PIDFD_GET_INFO, PIDFD_INFO_EXIT), once its parent has reaped it.
//   - its stdout is a pipe that nobody reads: the next write is SIGPIPE, unless the
//     supervisor holds copies of the pipes' ends and the terminal's master, sent
//     at Hello, and hands them to a second shim. What the dead one had read and
//     not written, the clients' connections and their queues are lost in any case.
//
// So it takes three descriptors for each process in the supervisor, a way to
// start a shim around a process, and a log that may miss a piece in its middle.
// For a process that only an OOM kill or an operator ends that was too much.
//
// Absent on purpose: stdin for clients of a terminal that has been closed, and
// retries of a line the disk had no room for.
//
// Why it is as small as it is: memory.go. Start reading at run.go, then start.go.
package shim
