// Package store is engined's one database: SQLite in WAL mode, one writer at
// a time, readers that never wait for it.
//
// Each noun (container, image, network) owns its tables and declares them with
// [DB.Migrate] when it is opened; no noun reads another's tables. The table
// schema_versions(noun, version) says how far each has come. A database that a
// newer engined has written is refused rather than guessed at.
//
// synchronous=NORMAL: a committed transaction survives the death of engined at
// any instant. A power failure can undo the last ones but never tears one; what
// must not be undone (an image that was reported done) is followed by [DB.Sync],
// one fdatasync of the log. synchronous=FULL would make that of every
// transaction, also of those that several parts of one call commit.
//
// Absent on purpose: an object mapper, and any caching. Nouns keep their own
// snapshots in memory.
package store
