package layer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/vbatts/tar-split/archive/tar"
	"github.com/vbatts/tar-split/tar/storage"
)

// splitName holds headers and padding of the layer's tar in tar-split's
// format. With the files themselves they give the same tar back, byte for byte.
const splitName = "tar-split.json.gz"

// splitWriter writes tar-split's entries. Some tars cannot be put together
// again from one copy of each file: those that name a file twice, and sparse
// ones. Their layers have no such file, and say so when it is asked for.
type splitWriter struct {
	sink     *os.File
	buffered *bufio.Writer
	packed   *gzip.Writer
	encoder  *json.Encoder
	position int
	seen     map[string]bool
	hopeless bool
	err      error // the first failure; reported by close
}

func createSplit(path string) (*splitWriter, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("creating tar-split metadata: %w", err)
	}
	buffered := bufio.NewWriterSize(file, 1<<16)
	packed, err := gzip.NewWriterLevel(buffered, gzip.BestSpeed)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &splitWriter{sink: file, buffered: buffered, packed: packed, encoder: json.NewEncoder(packed), seen: map[string]bool{}}, nil
}

// segment records raw bytes of the tar that are not a file's.
func (s *splitWriter) segment(raw []byte) {
	if len(raw) > 0 {
		s.add(storage.Entry{Type: storage.SegmentType, Payload: raw})
	}
}

// file records that a file's content comes here, size bytes with that crc64.
func (s *splitWriter) file(header *tar.Header, kept bool, size int64, sum []byte) {
	name := path.Clean(header.Name)
	if !kept || header.Typeflag == tar.TypeGNUSparse || isSparse(header) || s.seen[name] {
		s.hopeless = true
	}
	s.seen[name] = true
	entry := storage.Entry{Type: storage.FileType, Size: size}
	if size > 0 {
		entry.Payload = sum
	}
	entry.SetName(header.Name)
	s.add(entry)
}

func isSparse(header *tar.Header) bool {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (s *splitWriter) add(entry storage.Entry) {
	if s.err != nil || s.hopeless {
		return
	}
	entry.Position = s.position
	s.position++
	s.err = s.encoder.Encode(entry)
}

func (s *splitWriter) close() error {
	err := errors.Join(s.err, s.packed.Close(), s.buffered.Flush(), s.sink.Close())
	if s.hopeless {
		err = errors.Join(err, os.Remove(s.sink.Name()))
	}
	if err != nil {
		return fmt.Errorf("writing tar-split metadata: %w", err)
	}
	return nil
}
