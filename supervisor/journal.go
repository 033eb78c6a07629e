package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/engined/engined/proto/supervisor/v1"
)

// limits bound the journal on disk. A segment is an eighth of them; the oldest
// segments go as a whole.
type limits struct {
	events int
	bytes  int64
}

// segmentShare is the number of segments that the limits are divided into.
const segmentShare = 8

// journal numbers every event and keeps it on disk:
//
//	STATE-DIR/.journal/
//	├── 00000001763690400000000.events   oldest segment, named by its first number
//	└── 00000001763690400008192.events   the one being written, see segment.go
//
// An event is on disk before anybody sees it: append, then the loop applies it,
// then publish makes it visible to readers. Numbers are dense and begin at the
// microsecond of the journal's making, so they keep growing when the state
// directory is wiped, and a client of the old journal gets a snapshot.
//
// A kill at any byte leaves at most one incomplete frame at the end, whose event
// nobody has seen: open cuts it off. Nothing is fsynced: the state directory
// lives as long as the boot.
type journal struct {
	dir    string
	limits limits
	logger *slog.Logger

	// Owned by the one goroutine that appends.
	file  *os.File
	facts facts

	mu        sync.Mutex // guards what follows
	segments  []segment  // oldest first, the last is being written
	published uint64     // the last number that readers may see
	wake      chan struct{}
}

// openJournal reads what is in dir and makes it ready for appending.
func openJournal(dir string, limits limits, logger *slog.Logger) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal's directory: %w", err)
	}
	j := &journal{dir: dir, limits: limits, logger: logger, wake: make(chan struct{})}
	segments, err := listSegments(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the journal: %w", err)
	}
	broken := false
	for j.file == nil && len(segments) > 0 {
		last := segments[len(segments)-1]
		damaged, err := j.adopt(segments)
		broken = broken || damaged || err != nil
		if err == nil {
			break
		}
		logger.Warn("a journal segment is unreadable and dropped", "path", last.path, "error", err)
		if err := os.Remove(last.path); err != nil {
			return nil, fmt.Errorf("dropping a broken segment: %w", err)
		}
		segments = segments[:len(segments)-1]
	}
	if j.file != nil && !broken {
		return j, nil
	}
	return j, j.renumber()
}

// renumber begins a segment with numbers that nobody can have seen.
func (j *journal) renumber() error {
	first := max(uint64(time.Now().UnixMicro()), j.published+1)
	err := j.begin(first, j.published)
	j.published = first - 1
	return err
}

// adopt continues the last of segments. Only that one is read: its header says
// what the older ones add up to. It reports whether events are lost.
func (j *journal) adopt(segments []segment) (broken bool, err error) {
	last := &segments[len(segments)-1]
	file, err := os.OpenFile(last.path, os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	scanned, err := scanSegment(file)
	if err == nil {
		err = cutTail(file, scanned.size, j.logger)
	}
	if err != nil {
		file.Close()
		return false, err
	}
	last.first, last.last, last.size, last.head = scanned.header.First, scanned.last, scanned.size, scanned.head
	for i := range segments[:len(segments)-1] {
		segments[i].last = segments[i+1].first - 1
	}
	j.file, j.segments, j.facts, j.published = file, segments, scanned.facts, last.last
	return scanned.broken, nil
}

// cutTail removes what a writer that was killed left behind the last frame.
func cutTail(file *os.File, size int64, logger *slog.Logger) error {
	end, err := file.Seek(0, 2)
	if err != nil || end == size {
		return err
	}
	logger.Warn("the journal ends in an incomplete event, which is cut off", "bytes", end-size)
	if err := file.Truncate(size); err != nil {
		return err
	}
	_, err = file.Seek(size, 0)
	return err
}

// begin starts a new segment. The caller is the appending goroutine.
func (j *journal) begin(first, previous uint64) error {
	path := filepath.Join(j.dir, segmentName(first))
	file, size, err := createSegment(path, segmentHeader{Version: 1, First: first, Previous: previous, facts: j.facts})
	if err != nil {
		return fmt.Errorf("starting a journal segment: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file = file
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(j.segments, segment{path: path, first: first, last: first - 1, size: size, head: size})
	return nil
}

// append gives event the next number and writes it. It returns false for an
// event that is already recorded: an exit has one event, however often it is
// noticed and whoever notices it.
func (j *journal) append(event *api.Event) (bool, error) {
	if j.facts.has(event) {
		return false, nil
	}
	if err := j.rotate(); err != nil {
		return false, err
	}
	current := j.current()
	event.Seq = current.last + 1
	if event.Timestamp == nil {
		event.Timestamp = timestamppb.Now()
	}
	payload, err := proto.Marshal(event)
	if err != nil {
		return false, fmt.Errorf("encoding event %d: %w", event.Seq, err)
	}
	written, err := writeFrame(j.file, current.size, payload)
	if err != nil {
		return false, fmt.Errorf("writing event %d: %w", event.Seq, err)
	}
	j.facts.note(event)
	j.mu.Lock()
	defer j.mu.Unlock()
	tail := &j.segments[len(j.segments)-1]
	tail.last, tail.size = event.Seq, tail.size+written
	return true, nil
}

func (j *journal) current() segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments[len(j.segments)-1]
}

// rotate begins a new segment when the current one is full, and makes room.
func (j *journal) rotate() error {
	current := j.current()
	// The header is not counted: one as long as that would leave room for one event.
	if current.count() < j.limits.events/segmentShare && current.size-current.head < j.limits.bytes/segmentShare {
		return nil
	}
	if err := j.begin(current.last+1, current.last); err != nil {
		return err
	}
	return j.trim()
}

// trim removes the oldest segments until another full one fits in the limits.
func (j *journal) trim() error {
	for {
		oldest, tooMuch := j.excess()
		if !tooMuch {
			return nil
		}
		if err := os.Remove(oldest); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the oldest journal segment: %w", err)
		}
	}
}

// excess takes the oldest segment off the list if there is too much.
func (j *journal) excess() (string, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	events, bytes := 0, int64(0)
	for _, s := range j.segments {
		events, bytes = events+s.count(), bytes+s.size
	}
	if len(j.segments) < 2 || (events <= j.limits.events-j.limits.events/segmentShare && bytes <= j.limits.bytes-j.limits.bytes/segmentShare) {
		return "", false
	}
	oldest := j.segments[0]
	j.segments = j.segments[1:]
	return oldest.path, true
}

// publish makes the events up to seq visible to readers.
func (j *journal) publish(seq uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.published = seq
	close(j.wake)
	j.wake = make(chan struct{})
}

// last returns the last published number.
func (j *journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.published
}

// oldest returns the first number that is still held.
func (j *journal) oldest() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments[0].first
}

// find returns the segment with number seq, or false with a channel that closes
// when there is more to read, or neither if seq is not held.
func (j *journal) find(seq uint64) (s segment, found bool, wake <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if seq == j.published+1 {
		return segment{}, false, j.wake
	}
	for _, s := range j.segments {
		if s.first <= seq && seq <= s.last && seq <= j.published {
			return s, true, nil
		}
	}
	return segment{}, false, nil
}

// close ends appending. Readers may go on.
func (j *journal) close() error { return j.file.Close() }

// reader reads events in order. It holds one segment open and no events, so a
// slow one costs nothing.
type reader struct {
	journal *journal
	next    uint64
	file    *os.File
	first   uint64 // of the open segment
	offset  int64
	reached uint64 // number at offset
}

// readAfter returns a reader of all events after seq.
func (j *journal) readAfter(seq uint64) *reader { return &reader{journal: j, next: seq + 1} }

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// errGone says that the journal no longer holds the next event.
var errGone = errors.New("the journal no longer holds the next event")

// errEnd says that there is no further event yet.
var errEnd = errors.New("no further event")

// read returns the next event, errEnd if it has not happened yet, or errGone.
// With errEnd comes a channel that closes when it has.
func (r *reader) read() (*api.Event, <-chan struct{}, error) {
	s, found, wake := r.journal.find(r.next)
	if wake != nil {
		return nil, wake, errEnd
	}
	if !found {
		return nil, nil, errGone
	}
	event, err := r.readFrom(s)
	if err != nil {
		r.close()
		if !errors.Is(err, fs.ErrNotExist) {
			r.journal.logger.Warn("reading the journal", "path", s.path, "error", err)
		}
		return nil, nil, errGone
	}
	return event, nil, nil
}

func (r *reader) readFrom(s segment) (*api.Event, error) {
	if r.file == nil || r.first != s.first {
		if err := r.open(s); err != nil {
			return nil, err
		}
	}
	for {
		payload, size, err := readFrame(r.file, r.offset)
		if err != nil {
			return nil, err
		}
		r.offset += size
		number := r.reached
		r.reached++
		if number < r.next {
			continue
		}
		event := &api.Event{}
		if err := proto.Unmarshal(payload, event); err != nil {
			return nil, err
		}
		if event.Seq != r.next {
			return nil, fmt.Errorf("event %d stands where %d should", event.Seq, r.next)
		}
		r.next++
		return event, nil
	}
}

func (r *reader) open(s segment) error {
	r.close()
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	_, size, err := readFrame(file, 0)
	if err != nil {
		file.Close()
		return err
	}
	r.file, r.first, r.offset, r.reached = file, s.first, size, s.first
	return nil
}

// wait returns the next event, waiting for it if need be, or errGone.
func (r *reader) wait(ctx context.Context) (*api.Event, error) {
	for {
		event, wake, err := r.read()
		if !errors.Is(err, errEnd) {
			return event, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
