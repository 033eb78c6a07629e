package logfile

import (
	"time"

	"github.com/engined/engined/proto/errdefs"
)

// MaxChunk is the longest piece of a line, in bytes, that one entry holds:
// Docker's limit.
const MaxChunk = 16 << 10

// Stream says where an entry came from; the values are those of Docker's
// multiplexed stream.
type Stream uint8

// The streams. A terminal's output is Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Entry is one entry of a log.
type Entry struct {
	Stream Stream
	Time   time.Time
	// Line ends with its newline unless the entry is only a piece of a line. It
	// is valid until the reader's next call.
	Line  []byte
	Attrs map[string]string // json-file: what the log was configured to add; shared, read only
}

// Names of the drivers whose files this package knows.
const (
	JSONFile = "json-file"
	Local    = "local"
)

// format is what the drivers differ in.
type format interface {
	// begin prepares what all entries of a batch share.
	begin(now time.Time)
	// append appends one entry to dst; newline says whether line had one.
	append(dst []byte, s Stream, line []byte, newline bool) []byte
	// lines appends the whole lines at the start of data, until dst has limit
	// bytes or a line is longer than an entry may be, and returns how much of
	// data that was.
	lines(dst []byte, s Stream, data []byte, limit int) (_ []byte, done int)
	// boundary returns the length of the whole entries at the start of buf and
	// their number, and how many entries buf has in all.
	boundary(buf []byte) (length, whole, all int)
	// parse decodes the entry at the start of buf. size is 0 if buf has only a
	// part of it; good is false, and size what to skip, if it is not an entry.
	// With size -1 there is no way to find the next one.
	parse(buf []byte, e *Entry) (size int, good bool)
	// tail returns where in the file of this size the last n entries begin and
	// how many these are; -1 if that cannot be told from the file's end.
	tail(f readerAt, size int64, n int) (offset int64, found int, err error)
	// repair says what a writer that died left half-written: the size to cut
	// the file to and the bytes to add then.
	repair(f readerAt, size int64) (cut int64, add []byte, err error)
}

type readerAt interface {
	ReadAt(p []byte, off int64) (int, error)
}

func formatOf(driver string, attrs map[string]string) (format, error) {
	switch driver {
	case JSONFile:
		return newJSONFormat(attrs), nil
	case Local:
		return &localFormat{}, nil
	}
	return nil, errdefs.InvalidArgument.Errorf("log driver %q writes no file, expected %s or %s", driver, JSONFile, Local)
}
