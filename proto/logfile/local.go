package logfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"time"
)

const (
	localFixed   = 9    // bytes of a record's stream and time
	localFrame   = 8    // bytes of its two lengths
	localPartial = 0x80 // no newline
	// localMax is the longest record that is believed.
	localMax = localFixed + MaxChunk
)

// localFormat is local.
type localFormat struct {
	nanos uint64
	text  []byte // parse's line with its newline
}

func (f *localFormat) begin(now time.Time) { f.nanos = uint64(now.UnixNano()) }

func (f *localFormat) append(dst []byte, s Stream, line []byte, newline bool) []byte {
	size := uint32(localFixed + len(line))
	flags := byte(s)
	if !newline {
		flags |= localPartial
	}
	dst = binary.LittleEndian.AppendUint32(dst, size)
	dst = append(dst, flags)
	dst = binary.LittleEndian.AppendUint64(dst, f.nanos)
	dst = append(dst, line...)
	return binary.LittleEndian.AppendUint32(dst, size)
}

func (f *localFormat) lines(dst []byte, s Stream, data []byte, limit int) (_ []byte, done int) {
	for len(dst) < limit {
		end := bytes.IndexByte(data[done:], '\n')
		if end < 0 || end >= MaxChunk {
			break
		}
		dst = f.append(dst, s, data[done:done+end], true)
		done += end + 1
	}
	return dst, done
}

// record returns the size of the whole record at the start of buf; 0 if there
// is only a part of it, -1 if it is none.
func record(buf []byte) int {
	if len(buf) < 4 {
		return 0
	}
	n := binary.LittleEndian.Uint32(buf)
	if n < localFixed || n > localMax {
		return -1
	}
	size := int(n) + localFrame
	if len(buf) < size {
		return 0
	}
	stream := Stream(buf[4] &^ localPartial)
	if binary.LittleEndian.Uint32(buf[size-4:]) != n || stream != Stdout && stream != Stderr {
		return -1
	}
	return size
}

func (f *localFormat) boundary(buf []byte) (length, whole, all int) {
	for {
		size := record(buf[length:])
		if size <= 0 {
			break
		}
		length += size
		whole++
	}
	all = whole
	if length < len(buf) {
		all++
	}
	return length, whole, all
}

func (f *localFormat) parse(buf []byte, e *Entry) (size int, good bool) {
	size = record(buf)
	if size <= 0 {
		return size, false
	}
	line := buf[4+localFixed : size-4]
	if buf[4]&localPartial == 0 {
		f.text = append(append(f.text[:0], line...), '\n')
		line = f.text
	}
	e.Stream = Stream(buf[4] &^ localPartial)
	e.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(buf[5:]))).UTC()
	e.Line = line
	return size, true
}

// tail walks back from the last record. A torn or damaged end is -1.
func (f *localFormat) tail(file readerAt, size int64, n int) (offset int64, found int, err error) {
	at := size
	for at > 0 && found < n {
		var length [4]byte
		if at < 4 {
			return 0, -1, nil
		}
		if _, err := file.ReadAt(length[:], at-4); err != nil {
			return 0, 0, err
		}
		back := int64(binary.LittleEndian.Uint32(length[:])) + localFrame
		if back < localFixed+localFrame || back > localMax+localFrame || back > at {
			return 0, -1, nil
		}
		var first [4]byte
		if _, err := file.ReadAt(first[:], at-back); err != nil {
			return 0, 0, err
		}
		if first != length {
			return 0, -1, nil
		}
		at -= back
		found++
	}
	return at, found, nil
}

// repair cuts a half-written record off.
func (f *localFormat) repair(file readerAt, size int64) (cut int64, add []byte, err error) {
	if _, found, err := f.tail(file, size, 1); err != nil || found >= 0 {
		return size, nil, err
	}
	buf := make([]byte, 256<<10)
	for cut < size {
		n, err := file.ReadAt(buf[:min(size-cut, int64(len(buf)))], cut)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, nil, err
		}
		whole, _, _ := f.boundary(buf[:n])
		if whole == 0 {
			break
		}
		cut += int64(whole)
	}
	return cut, nil, nil
}
