package logfile

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// ReadOptions says what of a log is wanted.
type ReadOptions struct {
	Since, Until time.Time // zero: no bound; both inclusive
	Tail         int       // the last entries of what is there now; below zero: all
	Follow       bool      // wait for more
	// Done is closed when the writer will write no more: a follower then ends
	// after what is there. Nil: never.
	Done <-chan struct{}
}

// Reader reads one log from its oldest file on. It belongs to one goroutine.
// While it is open the writer keeps the files that it has not read yet.
type Reader struct {
	path   string
	opts   ReadOptions
	format format
	files  []*part // yet to be read, oldest first; the first is being read
	source io.Reader
	buf    []byte
	start  int // buf[start:end] is read and not yet decoded
	end    int
	watch  *watch
	// Skipped counts what was no entry, or gone before it could be read.
	skipped int64
	entry   Entry
}

// part is one file of the log, held by a shared lock.
type part struct {
	file       *os.File
	compressed bool
	skip       int   // entries
	offset     int64 // where to begin, plain files only
}

func (p *part) close() { p.file.Close() }

const bufferSize = 128 << 10

// NewReader opens the log at path that driver wrote. A log without any file is
// empty, or, when followed, yet to come.
func NewReader(driver, path string, opts ReadOptions) (r *Reader, err error) {
	f, err := formatOf(driver, nil)
	if err != nil {
		return nil, err
	}
	r = &Reader{path: path, opts: opts, format: f}
	if opts.Follow {
		// Before the first look at the files: nothing that happens after it is missed.
		if r.watch, err = newWatch(path); err != nil {
			return nil, err
		}
	}
	if err := r.open(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close gives back the files.
func (r *Reader) Close() error {
	for _, p := range r.files {
		p.close()
	}
	r.files = nil
	if r.watch != nil {
		r.watch.close()
		r.watch = nil
	}
	return nil
}

// Skipped returns how many damaged places and missing files were passed over.
func (r *Reader) Skipped() int64 { return r.skipped }

// Next returns the next entry, io.EOF at the end, or ctx's error if that comes
// while it waits. The entry is valid until the following call.
func (r *Reader) Next(ctx context.Context) (*Entry, error) {
	for {
		if e, err := r.Buffered(); e != nil || err != nil {
			return e, err
		}
		if err := r.fill(ctx); err != nil {
			return nil, err
		}
	}
}

// Buffered returns the next entry if it is in memory, else nil: who collects
// entries before sending them sends when the next one may take a while.
func (r *Reader) Buffered() (*Entry, error) {
	for r.start < r.end {
		size, good := r.format.parse(r.buf[r.start:r.end], &r.entry)
		switch {
		case good:
			r.start += size
			if r.wanted() {
				return &r.entry, nil
			}
			if r.past() {
				return nil, io.EOF
			}
		case size > 0:
			r.start += size
			r.skipped++
		case size < 0:
			// No way to find the next entry in this file.
			r.skipped++
			r.start = r.end
			r.source = strings.NewReader("")
		default:
			return nil, nil
		}
	}
	return nil, nil
}

func (r *Reader) wanted() bool {
	if len(r.files) > 0 && r.files[0].skip > 0 {
		r.files[0].skip--
		return false
	}
	return (r.opts.Since.IsZero() || !r.entry.Time.Before(r.opts.Since)) && !r.past()
}

func (r *Reader) past() bool {
	return !r.opts.Until.IsZero() && r.entry.Time.After(r.opts.Until)
}

// fill reads more of the current file, goes on to the next one, or waits.
func (r *Reader) fill(ctx context.Context) error {
	r.makeRoom()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		done := r.writerDone()
		if n, err := r.read(); n > 0 || err != nil {
			return err
		}
		moved, err := r.advance()
		if err != nil || moved {
			return err
		}
		if !r.opts.Follow || done {
			return io.EOF
		}
		if err := r.watch.wait(ctx, r.opts.Done, r.opts.Until); err != nil {
			return err
		}
	}
}

func (r *Reader) writerDone() bool {
	select {
	case <-r.opts.Done:
		return true
	default:
		return false
	}
}

func (r *Reader) makeRoom() {
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
	r.end = copy(r.buf, r.buf[r.start:r.end])
	r.start = 0
	if r.end == len(r.buf) {
		if len(r.buf) >= 8<<20 { // no entry is that long
			r.skipped++
			r.end = 0
			return
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

// read reads from the current file; 0 is its end, for now.
func (r *Reader) read() (int, error) {
	if len(r.files) == 0 {
		return 0, nil
	}
	if r.source == nil {
		source, err := r.files[0].open()
		if err != nil {
			r.skipped++
			source = strings.NewReader("")
		}
		r.source = source
	}
	n, err := r.source.Read(r.buf[r.end:])
	r.end += n
	if err != nil && !errors.Is(err, io.EOF) {
		if r.files[0].compressed { // damaged
			r.skipped++
			r.source = strings.NewReader("")
			return n, nil
		}
		return n, fmt.Errorf("reading the log: %w", err)
	}
	return n, nil
}

// open returns what reads the file's entries from where they are wanted.
func (p *part) open() (io.Reader, error) {
	if _, err := p.file.Seek(p.offset, io.SeekStart); err != nil {
		return nil, err
	}
	if p.compressed {
		return gzip.NewReader(p.file)
	}
	return p.file, nil
}

// advance goes on to the file that was written after the current one, if the
// current one is complete and read. It has read to its end just now, but the
// writer may have added to it before it was rotated: so one more read decides.
func (r *Reader) advance() (moved bool, err error) {
	if len(r.files) == 0 {
		return r.begin()
	}
	if len(r.files) == 1 {
		next, err := r.successor(r.files[0])
		if err != nil || next == nil {
			return false, err
		}
		r.files = append(r.files, next)
	}
	if n, err := r.read(); n > 0 || err != nil {
		return true, err
	}
	if r.start < r.end { // a writer died in the middle of an entry
		r.skipped++
		r.start, r.end = 0, 0
	}
	r.files[0].close()
	r.files = r.files[1:]
	r.source = nil
	return true, nil
}
