// Package supervisor is the daemon that owns containers that run: it starts
// them, hears of their exits, keeps a numbered record of what happened, and
// answers the calls of proto/supervisor/v1.
//
// # How a request goes
//
//	gRPC handler (create.go, signal.go, ... one file per verb)
//	  → task on the loop (supervisor.go): puts work on the container's queue
//	  → queue.go: per container in order, containers side by side
//	  → start.go: a start waits for one of N workers
//	  → package runtime: shim, OCI runtime
//	  → record.go: event into the journal, then into the table, then to readers
//
// Exits come the other way: shim's socket → watch.go → record.go.
//
// # Invariants
//
//   - The table of containers belongs to the loop, and nothing on the loop can
//     block. State is an answer of the loop.
//   - An event is in the journal before the table or any reader has it, and the
//     table takes events in the order of their numbers: a State with number n
//     and the events after n together say everything, once.
//   - A start and an exit are recorded once, across any number of restarts
//     (facts in segment.go), and no exit is recorded before its start. So are
//     kills for lack of memory, as often as the kernel's count is seen to grow,
//     and that a container is frozen or thawed.
//   - Work once begun goes on to its end, also when its client is gone. What a
//     killed supervisor leaves half done, the next one completes or undoes
//     (restore.go): a container whose creation was not finished is removed, and of
//     what a shim was asked to start it is found out whether it runs (settle.go).
//   - A container outlives the supervisor; a shim's death ends its container,
//     with status 137 and a reason.
//
// Absent on purpose: HTTP but for --metrics-address (diagnose.go), images,
// networks; how shims are made (package runtime); polling of any kind.
package supervisor
