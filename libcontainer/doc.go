// Package libcontainer is the OCI runtime behind ocirun's verbs, one file per
// verb: create, start, run, exec, kill, delete, pause, update, list, checkpoint,
// restore.
//
// It runs on specs.Spec itself. Creating a container is two things: pure Go
// compiles spec and host facts into a plan (validate.go, plan.go, rootfs/),
// and the stage in package nsenter applies it in the new process (parent.go
// starts it and talks with it). exec is a shorter plan.
//
// What happens at `create`, in time:
//
//	parent                                child
//	read and validate the spec
//	reserve ROOT/ID
//	clone + exec itself ───────────────> stage: hidden, makes namespaces
//	make and set the cgroup
//	compile plan, filter
//	                     <── "born" ──── waits
//	plan into the memory file, "plan" ─> joins cgroup and namespaces, mounts
//	v1's cpuset and cpu, "continue" ───> joins the cpuset
//	save making.json
//	                     <── "step" ──── at each Sync, if there are hooks
//	run hooks ─────────── "continue" ──> pivot_root, terminal, user, lookup
//	                     <── "ready" ─── waits on exec.fifo (start writes to it)
//	state.json, the pid file             startContainer hooks, filter, execve
//
// A user namespace that is joined, or joins others, and a time namespace are
// made by the stage itself, which goes on as a child: "pid", and making.json is
// written then. So does the stage of an exec, to be in the container's pid namespace
// only with nothing of the host's at hand. A filter that notifies is loaded before
// "ready", because the parent takes its listener to the agent.
//
// The process runs startContainer hooks itself and tells start of them over another
// fifo (nsenter/hook.c).
//
// `run` has no fifo: the child goes straight on to execve, which closes its
// end of the socket, and that is the word that it runs.
//
// A container is there for others once making.json has become state.json; before, only
// a removal looks for it.
//
// State is what create knew and the kernel cannot tell (state.go); status is
// derived (status.go). Any failure unwinds what was made (errdefs.Undo).
//
// Saving and bringing back processes is CRIU's work (package criu); checkpoint
// and restore tell it what is not the container's own: mounts, namespaces and
// stdio from outside.
//
// Absent on purpose: what validate.go answers with NotImplemented. Start reading
// at launch in create.go.
package libcontainer
