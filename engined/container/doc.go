// Package container keeps containers: what was asked for, what became of it,
// and the verbs in between. A file is a verb.
//
// # What is kept where
//
//	database   containers(id, name, document)      one JSON Record per container
//	ROOT/containers/ID/                            log files
//	ROOT/volumes/NAME/_data/                       volumes
//	ROOT/volumes/NAME/filling                      while the image's content is copied into it
//	ROOT/volumes/.NAME.removed/                    a volume that is being deleted
//	EXECROOT/containers/ID/                        config.json, hostname, hosts, resolv.conf
//
// The directory in EXECROOT is made before anything else that a start acquires
// and removed after everything else was given back: while it is there, there is
// something to give back. No flag says so.
//
// A [Record] is immutable. A change is made to a copy, written to the database,
// then put in the old one's place, then told: disk, memory, event. Readers take
// the pointer and never wait.
//
// # States
//
// A record's phase is derived from facts with times (record.go). The tables in
// state.go say which event leads from which phase to which, which verb is
// allowed in which phase, and what a verb does that meets another one at work
// on the same container: wait, go on beside it, or be refused (turn.go).
//
// # Runs
//
// Start is one call to the supervisor. What happens afterwards comes as
// numbered events (monitor.go). An exit is recorded, then told to waiters, then
// torn down: whoever next has the container's turn does it, so that a start
// right after an exit finds everything given back (teardown.go).
//
// At engined's start the supervisor is asked what runs (reconcile.go). No
// event number is stored: State, which carries one, includes all that happened
// while engined was away.
//
// Clients that attach before the start are parked and handed to the shim with
// the start, so that they miss nothing (attach.go).
//
// Absent on purpose: restart policies other than "no", health checks, published
// ports, links; asking for them is an error (unsupported.go).
//
// Start reading at service.go, then start.go and exit.go.
package container
