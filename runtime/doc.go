// Package runtime is the supervisor's view of a container: its directory, its
// shim and the OCI runtime behind it. It is the only package that knows how
// shims are made and found.
//
// A [Host] makes containers ([Host.Create]) and finds those of an earlier
// supervisor ([Host.Load]). A [Container] asks its shim, with a deadline for
// every request, or runs the OCI runtime itself where the shim has no part in
// it (pause, update, checkpoint). What a container is (running, paused) is the
// supervisor's to know; this package carries out.
//
// Invariants:
//   - Of the files in a container's directory this package writes those that
//     proto/shim's table gives to the supervisor, and no other.
//   - A pid is used only together with its start time or as a pidfd.
//   - A shim that was started is waited for: by pidfd, then reaped if it is a
//     child of this process.
//   - Whatever Create made is gone when it fails, or its directory stays and says
//     that it is to go.
//   - No call waits longer than its limit for a shim: it then fails with the code
//     shim-stuck, naming the container. One stuck shim holds up no other.
//
// Deadlines and reading the exit files are here; queues, events and the table
// of containers are package supervisor's.
//
// Start reading at create.go, then container.go.
package runtime
