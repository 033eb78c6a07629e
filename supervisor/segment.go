package supervisor

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/engined/engined/proto/shim"
	api "github.com/engined/engined/proto/supervisor/v1"
)

// A segment file is a sequence of frames: first a JSON segmentHeader, then one
// protobuf Event per frame, numbered without gaps from the header's First.
//
//	bytes 0-3  length of the payload, little endian
//	bytes 4-7  CRC-32C of the payload
//	payload

const (
	frameHead    = 8
	maxFrame     = 16 << 20
	segmentExt   = ".events"
	segmentWidth = 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is what memory keeps of one file.
type segment struct {
	path        string
	first, last uint64 // last is first-1 while it is empty
	size        int64
	head        int64 // of it the header, which is as long as there are containers
}

func (s segment) count() int { return int(s.last - s.first + 1) }

type segmentHeader struct {
	Version  int    `json:"version"`
	First    uint64 `json:"first"`
	Previous uint64 `json:"previous"` // the number before First
	facts           // as of Previous
}

// facts is what the events so far add up to, for everything not yet deleted. It
// makes each start, each exit, each OOM and each change between frozen and not one
// event across any number of restarts, also when the event itself has left the
// journal.
type facts struct {
	Processes map[string]map[string]progress `json:"facts"`               // by container id and name
	OOMKills  map[string]uint64              `json:"oom_kills,omitempty"` // by container id
	Paused    map[string]bool                `json:"paused,omitempty"`    // true, by id of each frozen container
}

type progress uint8

const (
	recordedStart progress = 1 << iota
	recordedExit
)

// has reports whether event would repeat a recorded fact, or is about a
// container that is not there: an OOM notice may come with the end of a cgroup,
// after the delete, and must not make the id known again.
func (f facts) has(event *api.Event) bool {
	processes, known := f.Processes[event.Id]
	switch event.Type {
	case eventCreated:
		return known
	case eventStartContainer:
		return processes[shim.Init]&recordedStart != 0
	case eventStartProcess:
		return processes[event.Pid]&recordedStart != 0
	case eventExit:
		return !known || processes[event.Pid]&recordedExit != 0
	case eventOOM:
		return !known || event.OomKills <= f.OOMKills[event.Id]
	}
	return !known
}

// note records event.
func (f *facts) note(event *api.Event) {
	switch event.Type {
	case eventDelete:
		delete(f.Processes, event.Id)
		delete(f.OOMKills, event.Id)
		delete(f.Paused, event.Id)
		return
	case eventForget:
		delete(f.Processes[event.Id], event.Pid)
		return
	}
	if f.Processes == nil {
		f.Processes = map[string]map[string]progress{}
	}
	processes := f.Processes[event.Id]
	if processes == nil {
		processes = map[string]progress{}
		f.Processes[event.Id] = processes
	}
	switch event.Type {
	case eventStartContainer:
		processes[shim.Init] |= recordedStart
	case eventStartProcess:
		processes[event.Pid] = recordedStart
	case eventExit:
		processes[event.Pid] |= recordedExit
		if event.Pid == shim.Init {
			delete(f.Paused, event.Id)
		}
	case eventPause:
		if f.Paused == nil {
			f.Paused = map[string]bool{}
		}
		f.Paused[event.Id] = true
	case eventResume:
		delete(f.Paused, event.Id)
	case eventOOM:
		if f.OOMKills == nil {
			f.OOMKills = map[string]uint64{}
		}
		f.OOMKills[event.Id] = event.OomKills
	}
}

// of is what is recorded of one container.
func (f *facts) of(id string) recorded {
	return recorded{f.Processes[id], f.OOMKills[id], f.Paused[id]}
}

// recorded is facts of one container.
type recorded struct {
	processes map[string]progress
	oomKills  uint64
	paused    bool
}

// status is what a container that was started is, as far as it is recorded.
func (r recorded) status() string {
	if r.paused {
		return statusPaused
	}
	return statusRunning
}

func segmentName(first uint64) string {
	return fmt.Sprintf("%0*d%s", segmentWidth, first, segmentExt)
}

// listSegments returns dir's segments, oldest first, and removes what an
// interrupted createSegment left.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(entry.Name(), ".tmp") {
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			continue
		}
		number, isSegment := strings.CutSuffix(entry.Name(), segmentExt)
		first, err := strconv.ParseUint(number, 10, 64)
		if !isSegment || err != nil || first == 0 {
			continue
		}
		size := int64(0)
		if about, err := entry.Info(); err == nil {
			size = about.Size()
		}
		segments = append(segments, segment{path: path, first: first, size: size})
	}
	slices.SortFunc(segments, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return segments, nil
}

// createSegment makes the file whole with its header, then gives it its name.
func createSegment(path string, header segmentHeader) (file *os.File, size int64, err error) {
	payload, err := json.Marshal(header)
	if err != nil {
		return nil, 0, err
	}
	file, err = os.OpenFile(path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, 0, err
	}
	size, err = writeFrame(file, 0, payload)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close(), os.Remove(path+".tmp"))
	}
	return file, size, nil
}

// writeFrame writes one frame at offset at, where the file ends, and takes back
// what it wrote of a frame that did not fit.
func writeFrame(file *os.File, at int64, payload []byte) (int64, error) {
	frame := make([]byte, frameHead, frameHead+len(payload))
	binary.LittleEndian.PutUint32(frame[0:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(payload, castagnoli))
	frame = append(frame, payload...)
	if _, err := file.WriteAt(frame, at); err != nil {
		return 0, errors.Join(err, file.Truncate(at))
	}
	return int64(len(frame)), nil
}

// What can stand at an offset instead of a frame.
var (
	errTorn   = errors.New("the file ends inside a frame") // its writer was killed
	errBroken = errors.New("no frame")
)

// readFrame returns the payload at offset and the size of its frame; io.EOF
// where the file ends, errTorn where it ends inside a frame, errBroken otherwise.
func readFrame(file io.ReaderAt, offset int64) ([]byte, int64, error) {
	var head [frameHead]byte
	n, err := file.ReadAt(head[:], offset)
	if n == 0 && errors.Is(err, io.EOF) {
		return nil, 0, io.EOF
	}
	if n < frameHead {
		return nil, 0, fmt.Errorf("%w: %w", errTorn, err)
	}
	length := binary.LittleEndian.Uint32(head[0:])
	if length > maxFrame {
		return nil, 0, fmt.Errorf("%w: a length of %d", errBroken, length)
	}
	payload := make([]byte, length)
	if n, err := file.ReadAt(payload, offset+frameHead); n < len(payload) {
		return nil, 0, fmt.Errorf("%w: %w", errTorn, err)
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, 0, fmt.Errorf("%w: wrong checksum", errBroken)
	}
	return payload, frameHead + int64(length), nil
}

// scanned is what a whole segment says.
type scanned struct {
	header segmentHeader
	facts  facts
	last   uint64
	size   int64 // up to the end of the last good frame
	head   int64 // of the header
	broken bool  // what follows is not what a killed writer leaves
}

// scanSegment reads a segment up to its end or its first broken frame. It fails
// only if the header is unreadable.
func scanSegment(file io.ReaderAt) (scanned, error) {
	payload, size, err := readFrame(file, 0)
	if err != nil {
		return scanned{}, fmt.Errorf("reading the header: %w", err)
	}
	result := scanned{size: size, head: size}
	if err := json.Unmarshal(payload, &result.header); err != nil {
		return scanned{}, fmt.Errorf("reading the header: %w", err)
	}
	if result.header.Version != 1 || result.header.First == 0 {
		return scanned{}, fmt.Errorf("a header of version %d, first number %d", result.header.Version, result.header.First)
	}
	result.facts, result.last = result.header.facts, result.header.First-1
	for {
		payload, size, err := readFrame(file, result.size)
		if err != nil {
			result.broken = errors.Is(err, errBroken)
			return result, nil
		}
		event := &api.Event{}
		if proto.Unmarshal(payload, event) != nil || event.Seq != result.last+1 {
			result.broken = true
			return result, nil //nolint:nilerr // said by broken
		}
		result.facts.note(event)
		result.last, result.size = event.Seq, result.size+size
	}
}
