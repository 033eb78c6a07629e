package logs

import (
	"encoding/binary"

	"github.com/engined/engined/proto/logfile"
)

// The multiplexed stream: each entry of a log is a frame, which some clients
// take for a line.
//
//	byte 0     1 standard output, 2 standard error
//	bytes 1-3  zero
//	bytes 4-7  length of what follows, big endian
const frameHeader = 8

// AppendFrame appends a frame to to.
func AppendFrame(to []byte, stream logfile.Stream, text []byte) []byte {
	to = append(to, byte(stream), 0, 0, 0)
	to = binary.BigEndian.AppendUint32(to, uint32(len(text)))
	return append(to, text...)
}
