// Package logfile is the on-disk form of a container's output: [Writer], used
// by the shim, and [Reader], used by engined for `logs`.
//
// # Files
//
//	PATH         the current file, written with O_APPEND, one write(2) per batch
//	PATH.1       the newest rotated file; PATH.2 is older, and so on
//	PATH.N.gz    the same, compressed
//	PATH.new     the next current file, for the moment of a rotation
//	PATH.gz.tmp  a rotated file while it is being compressed
//
// The writer alone creates, renames and removes; one writer has a path at a time.
//
// # json-file
//
// Docker's format, byte for byte: one JSON object a line,
//
//	{"log":"text\n","stream":"stdout","attrs":{"name":"value"},"time":"2006-01-02T15:04:05.999999999Z"}
//
// A line of output longer than [MaxChunk], and an end of output without a
// newline, are entries whose log has no "\n" at its end. Bytes that are not
// UTF-8 become U+FFFD.
//
// # local
//
// Binary, little endian, bytes kept as they are, no attributes:
//
//	uint32  n, length of what follows up to the last field
//	byte    stream, 1 or 2; 0x80 added for an entry without newline
//	int64   nanoseconds since 1970
//	n-9     the line without its newline
//	uint32  n again, so that the file can be read from its end
//
// # Rotation and readers
//
// A reader holds flock(LOCK_SH) on the file it reads, and takes the next one's
// before it lets go. The writer neither removes nor compresses a file that is
// locked, nor one newer than it, so a follower that lags loses nothing; it may
// keep maxExtra files too many for that. Renames go from the oldest to the
// newest: a file's number only grows, and the file numbered one less is the one
// written next.
//
// # Time
//
// An entry's time is when its batch was read from the container. A disk that is
// full loses entries, never the container's progress; [Writer.Lost] counts them.
//
// Absent on purpose: reading for since/until by index, and drivers that ship
// logs elsewhere (they read these files, in engined).
package logfile
