// Package task is engined's typed view of the supervisor: a task is a
// container that runs, or whose exit has not been collected yet. It hides gRPC
// and the shim's packets; errors come back as package errdefs'.
//
// A call that finds the supervisor away waits for it to come back, for
// [patience] at most: it restarts in a fraction of a second and its tasks go on
// meanwhile.
//
// [Attach] bypasses the supervisor: it hands a client's connection to the
// container's shim, which from then on speaks Docker's stream on it. engined
// may die and the stream goes on. A connection without a descriptor of its own
// (TLS) is relayed, and ends with engined.
//
// Start reading at client.go; attach.go is the one other protocol.
package task
