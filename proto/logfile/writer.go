package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// flushSize is how much encoded text is collected before a write(2).
const flushSize = 128 << 10

// Writer writes one log. It belongs to one goroutine and never blocks on
// anything but the disk.
type Writer struct {
	spec    shim.Log
	format  format
	fd      int
	size    int64
	scratch []byte // where entries are encoded
	buf     []byte // encoded and not yet written; mostly in scratch
	rest    [Stderr + 1][]byte
	rotation

	lost   int64
	reason error
}

// Open opens or makes the log that spec describes and repairs its end. Scratch
// is memory to encode in, at best 256 KiB; nil: taken from the heap when needed.
// Errors of kind InvalidArgument name the field of spec.
func Open(spec shim.Log, scratch []byte) (w *Writer, err error) {
	f, err := formatOf(spec.Driver, spec.Attrs)
	if err != nil {
		return nil, err
	}
	if len(spec.Path) == 0 || spec.Path[0] != '/' {
		return nil, errdefs.InvalidArgument.Errorf("log.path is %q, expected an absolute path", spec.Path)
	}
	if spec.MaxSize < 0 || spec.MaxFile < 0 {
		return nil, errdefs.InvalidArgument.Errorf("log.max_size is %d and log.max_file is %d, expected none below zero", spec.MaxSize, spec.MaxFile)
	}
	var undo errdefs.Undo
	defer undo.OnError(&err)
	fd, err := openAppend(spec.Path)
	if err != nil {
		return nil, err
	}
	w = &Writer{spec: spec, format: f, fd: fd, scratch: scratch}
	undo.Add("close the log", closing(fd))
	if err := w.repair(); err != nil {
		return nil, fmt.Errorf("repairing the end of %s: %w", spec.Path, err)
	}
	if err := w.rotation.load(spec.Path); err != nil {
		return nil, err
	}
	return w, nil
}

func openAppend(path string) (fd int, err error) {
	// O_RDWR: repair reads. 0640 is dockerd's.
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ELOOP):
		return -1, errdefs.InvalidArgument.Errorf("log.path is %q: %w", path, err)
	case err != nil:
		return -1, fmt.Errorf("opening the log %s: %w", path, err)
	}
	return fd, nil
}

// fdReader is a readerAt on a bare descriptor.
type fdReader int

func (fd fdReader) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Pread(int(fd), p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, err
		case n == 0:
			return done, io.EOF
		}
		if done += n; done == len(p) {
			return done, nil
		}
	}
}

func (w *Writer) repair() error {
	var st unix.Stat_t
	if err := unix.Fstat(w.fd, &st); err != nil {
		return err
	}
	cut, add, err := w.format.repair(fdReader(w.fd), st.Size)
	if err != nil {
		return err
	}
	if cut < st.Size {
		if err := unix.Ftruncate(w.fd, cut); err != nil {
			return err
		}
	}
	if len(add) > 0 {
		if _, err := unix.Write(w.fd, add); err != nil {
			return err
		}
	}
	w.size = cut + int64(len(add))
	return nil
}

// Write logs what was read from a stream at a time. What follows the last
// newline waits for the rest of its line.
func (w *Writer) Write(s Stream, data []byte, now time.Time) {
	w.format.begin(now)
	for len(data) > 0 {
		if len(w.rest[s]) == 0 {
			data = data[w.lines(s, data):]
		}
		data = data[w.piece(s, data):]
	}
	w.flush()
}

// lines logs the whole lines at the start of data and returns their length.
func (w *Writer) lines(s Stream, data []byte) (done int) {
	for done < len(data) {
		w.prepare()
		limit := flushSize
		if w.spec.MaxSize > 0 {
			limit = int(min(int64(limit), w.spec.MaxSize-w.size))
		}
		buf, n := w.format.lines(w.buf, s, data[done:], max(limit, len(w.buf)+1))
		w.buf = buf
		w.settle()
		if done += n; n == 0 {
			break
		}
	}
	return done
}

// piece takes a piece of a line from the start of data: up to its end, to what
// one entry holds, or all of it, which then waits for more.
func (w *Writer) piece(s Stream, data []byte) (done int) {
	rest := w.rest[s]
	line, room := bytes.IndexByte(data, '\n'), MaxChunk-len(rest)
	switch {
	case line >= room || line < 0 && len(data) >= room:
		rest = append(rest, data[:room]...)
		w.add(s, rest, false)
		w.rest[s] = rest[:0]
		return room
	case line >= 0:
		rest = append(rest, data[:line]...)
		w.add(s, rest, true)
		w.rest[s] = rest[:0]
		return line + 1
	}
	w.rest[s] = append(rest, data...)
	return len(data)
}

// End logs what the streams ended with, if that had no newline.
func (w *Writer) End(now time.Time) {
	w.format.begin(now)
	for s := Stdout; s <= Stderr; s++ {
		if len(w.rest[s]) > 0 {
			w.add(s, w.rest[s], false)
		}
		w.rest[s] = nil
	}
	w.flush()
}

// Trim gives back memory that is not needed while nothing is written.
func (w *Writer) Trim() {
	w.buf = nil
	for s := range w.rest {
		if len(w.rest[s]) == 0 {
			w.rest[s] = nil
		}
	}
}

// Lost returns how many entries could not be written and why the last was not.
func (w *Writer) Lost() (entries int64, reason error) { return w.lost, w.reason }

// Close gives back the descriptors. Call End first.
func (w *Writer) Close() error {
	w.rotation.abandon()
	return unix.Close(w.fd)
}

func (w *Writer) add(s Stream, line []byte, newline bool) {
	w.prepare()
	w.buf = w.format.append(w.buf, s, line, newline)
	w.settle()
}

func (w *Writer) prepare() {
	if w.buf == nil {
		w.buf = w.scratch[:0]
	}
}

// settle writes and rotates if it is time for that.
func (w *Writer) settle() {
	full := w.spec.MaxSize > 0 && w.size+int64(len(w.buf)) >= w.spec.MaxSize
	if full || len(w.buf) >= flushSize {
		w.flush()
	}
	if full {
		w.rotate()
	}
}

// flush writes what was encoded. What does not fit on the disk is lost, whole
// entries of it.
func (w *Writer) flush() {
	done, err := writeAll(w.fd, w.buf)
	failpoint.At("log-written")
	w.size += int64(done)
	if err != nil {
		w.lose(w.buf[:done], w.buf, err)
	}
	w.buf = w.buf[:0]
}

func (w *Writer) lose(done, all []byte, reason error) {
	length, _, _ := w.format.boundary(done)
	if excess := len(done) - length; excess > 0 && unix.Ftruncate(w.fd, w.size-int64(excess)) == nil {
		w.size -= int64(excess)
	}
	_, _, lost := w.format.boundary(all[length:])
	w.lost += int64(lost)
	w.reason = fmt.Errorf("writing %s: %w", w.spec.Path, reason)
}

func writeAll(fd int, data []byte) (done int, err error) {
	for done < len(data) {
		n, err := unix.Write(fd, data[done:])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return done, err
		}
		done += max(n, 0)
	}
	return done, nil
}
