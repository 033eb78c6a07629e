package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// invocation is one call of the runtime.
type invocation struct {
	verb  string
	args  []string // after the verb
	log   string   // file for --log, relative to the container's directory
	files [3]int   // standard descriptors; -1: /dev/null, and a memfd for stderr
}

// invoke calls the runtime; finished is called from the loop with nil if it
// succeeded, else with its error.
func (s *Shim) invoke(call invocation, finished func(err error)) (*child, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	said, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a memfd: %w", err)
	}
	for i, replacement := range []int{null, null, said} {
		if call.files[i] < 0 {
			call.files[i] = replacement
		}
	}
	offset := sizeOf(call.log)
	argv := append([]string{s.Runtime}, s.runtimeArgs...)
	argv = append(argv, "--log", filepath.Join(s.dir, call.log), "--log-format", "json", call.verb)
	argv = append(argv, call.args...)
	c, err := s.spawn(argv, call.files, func(status unix.WaitStatus) {
		s.calls--
		err := s.verdict(call, status, offset, said)
		unix.Close(said)
		finished(err)
		s.reapStrays()
	})
	if err != nil {
		unix.Close(said)
		return nil, missing(s.Runtime, err)
	}
	s.calls++
	return c, nil
}

func missing(runtime string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOEXEC) {
		return errdefs.NotFound.Coded(errdefs.RuntimeMissing, runtime, "starting the runtime %s: %w", runtime, err)
	}
	return fmt.Errorf("starting the runtime %s: %w", runtime, err)
}

func sizeOf(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// verdict says how a call ended: nil, or the error that the runtime logged,
// else what it wrote to its standard error, else its status.
func (s *Shim) verdict(call invocation, status unix.WaitStatus, offset int64, said int) error {
	name := filepath.Base(s.Runtime)
	switch {
	case status.Exited() && status.ExitStatus() == 0:
		return nil
	case status.Signaled():
		return errdefs.Internal.Errorf("%s %s was killed by signal %d (%s)", name, call.verb, status.Signal(), status.Signal())
	}
	if wire, found := lastError(readFrom(call.log, offset)); found {
		if wire.Kind == errdefs.Unknown && wire.Code == "" {
			wire = classify(wire.Text)
		}
		return wire.Err()
	}
	// Empty if its standard error is the container's: that is read by explain.
	text := make([]byte, 4096)
	n, _ := unix.Pread(said, text, 0)
	if message := strings.TrimSpace(string(text[:max(n, 0)])); message != "" {
		return classify(message).Err()
	}
	return errdefs.Unknown.Errorf("%s %s ended with status %d and said nothing", name, call.verb, status.ExitStatus())
}

// maxRuntimeLog is how much of the runtime's log is looked at for its error.
const maxRuntimeLog = 64 << 10

func readFrom(path string, offset int64) []byte {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	data, err := io.ReadAll(io.NewSectionReader(file, max(offset, sizeOf(path)-maxRuntimeLog), maxRuntimeLog))
	if err != nil {
		logf("reading %s: %v", path, err)
	}
	return data
}

// lastError returns the last line of level error (or above) in a runtime's log.
// Kind, code and subject are ocirun's.
func lastError(log []byte) (wire errdefs.Wire, found bool) {
	for len(log) > 0 {
		var line []byte
		log = bytes.TrimRight(log, "\n")
		start := bytes.LastIndexByte(log, '\n') + 1
		log, line = log[:start], log[start:]
		var entry struct {
			Level string `json:"level"`
			errdefs.Wire
		}
		if json.Unmarshal(line, &entry) != nil || entry.Text == "" {
			continue
		}
		switch entry.Level {
		case "error", "fatal", "panic":
			return entry.Wire, true
		}
	}
	return errdefs.Wire{}, false
}
