// Package engined puts the engine together: configuration, listeners, the
// supervisor it talks to, the nouns, and the order in which they begin and end.
//
//	config.go      flags + daemon.json → one Config
//	value.go       what a setting can be, on the command line and in JSON
//	listen.go      unix, tcp + TLS and inherited sockets
//	lock.go        pidfile and locks: one engined per pidfile and per root
//	supervisor.go  finds or starts the supervisor, and starts it again if it dies
//	signals.go     TERM, HUP, USR1
//	engine.go      builds the parts in dependency order, runs them, stops them in reverse
//
// engine.go is the only file that knows all parts; nobody imports this package
// but cmd/engined.
//
// Invariants:
//   - A setting on the command line and in the file at once is an error.
//   - Listeners accept before anything is restored, so nobody sees a refused
//     connection; requests wait until all containers are known.
//   - The end of engined, whatever its way, ends no container. The supervisor
//     that it started is ended by an orderly stop only, and only if no
//     container runs.
package engined
