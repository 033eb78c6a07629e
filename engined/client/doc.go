// Package client is engined's built-in command line: `engined run`, `engined
// ps` and so on, on moby/moby/client. It is for machines without the docker
// command; its words, tables and exit codes are that command's, for the
// options it has.
//
// client.go has the table of commands; there is a file per command or per
// small group of them. stream.go and terminal.go are what run, exec and attach
// share: copying, raw mode, window size, signals, the keys that detach.
//
// Exit codes: the process's own; 125 if engined refuses, 126 and 127 if the
// command cannot be executed or is not there; 1 for other commands that fail.
//
// Absent on purpose: contexts, configuration files, credentials, plugins,
// pulling (the engine does not have it yet), and output templates but for
// inspect.
package client
