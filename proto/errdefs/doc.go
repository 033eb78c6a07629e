// Package errdefs is the error contract between engined's processes: a kind
// (what class of failure, one of containerd/errdefs') and, where a program
// acts on the cause, a code. Text is for people and is never matched.
//
// Kind and code cross every process boundary as the JSON shape [Wire]: in
// ocirun's log line, in the shim's packets, and as a detail of a gRPC status.
//
// The package also holds the one [Undo] stack that every acquiring function
// uses. It imports the standard library and containerd/errdefs (itself only
// errors and context), because ocirun and shim link it.
//
// Absent on purpose: rendering for Docker's clients, which is the business of
// engined/api/errors.go alone.
package errdefs
