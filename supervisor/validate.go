package supervisor

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/engined/engined/proto/errdefs"
	api "github.com/engined/engined/proto/supervisor/v1"
	"github.com/engined/engined/runtime"
)

// idPattern is what an id may be: it becomes a directory's name. It is matched by
// hand: to compile its repetition takes 1.5 ms of each start.
const (
	idPattern = `^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`
	maxID     = 128
)

func isID(id string) bool {
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// maxAttach bounds the attach packets that output may wait for.
const maxAttach = 1024

func checkID(field, id string) error {
	if !isID(id) {
		return errdefs.InvalidArgument.Errorf("%s: %q, expected %s", field, id, idPattern)
	}
	return nil
}

// reservedEndings are those of the files beside the processes' directories.
var reservedEndings = []string{".json", ".sock", ".log", ".tmp"}

func checkProcessName(name string) error {
	if err := checkID("pid", name); err != nil {
		return err
	}
	if name == runtime.Init {
		return errdefs.InvalidArgument.Errorf("pid: %q is the container's first process", name)
	}
	for _, ending := range reservedEndings {
		if strings.HasSuffix(name, ending) {
			return errdefs.InvalidArgument.Errorf("pid: %q, expected a name that does not end in %s", name, ending)
		}
	}
	return nil
}

func checkFifos(stdin, stdout, stderr string) error {
	for _, fifo := range []struct{ field, path string }{{"stdin", stdin}, {"stdout", stdout}, {"stderr", stderr}} {
		if fifo.path != "" && !filepath.IsAbs(fifo.path) {
			return errdefs.InvalidArgument.Errorf("%s: %q, expected an absolute path", fifo.field, fifo.path)
		}
		if fifo.path == "" {
			continue
		}
		about, err := os.Stat(fifo.path)
		if err != nil {
			return errdefs.InvalidArgument.Errorf("%s: %w, expected a fifo", fifo.field, err)
		}
		if about.Mode().Type() != fs.ModeNamedPipe {
			return errdefs.InvalidArgument.Errorf("%s: %s is no fifo", fifo.field, fifo.path)
		}
	}
	return nil
}

func sizeOf(width, height uint32) (uint16, uint16, error) {
	if width > math.MaxUint16 || height > math.MaxUint16 {
		return 0, 0, errdefs.InvalidArgument.Errorf("width, height: %d, %d, expected at most %d", width, height, math.MaxUint16)
	}
	return uint16(width), uint16(height), nil
}

// logOf validates a log spec; nil and "none" are no log.
func logOf(spec *api.LogSpec) (*runtime.Log, error) {
	if spec == nil {
		return nil, nil
	}
	switch spec.Driver {
	case "", "none":
		return nil, nil
	case "json-file", "local":
	default:
		return nil, errdefs.InvalidArgument.Errorf("log.driver: %q, expected json-file, local or none", spec.Driver)
	}
	if !filepath.IsAbs(spec.Path) {
		return nil, errdefs.InvalidArgument.Errorf("log.path: %q, expected an absolute path", spec.Path)
	}
	if spec.MaxSize < 0 {
		return nil, errdefs.InvalidArgument.Errorf("log.max_size: %d, expected 0 or more bytes", spec.MaxSize)
	}
	return &runtime.Log{
		Driver: spec.Driver, Path: spec.Path, MaxSize: spec.MaxSize, MaxFile: max(int(spec.MaxFile), 1),
		Compress: spec.Compress, Attrs: spec.Attrs,
	}, nil
}

// needCreated says why the container is not one that waits for its start.
func (c *container) needCreated(id string) error {
	switch c.status {
	case statusCreated:
		return nil
	case statusStopped:
		return errdefs.FailedPrecondition.Coded(errdefs.NotRunning, id, "container %s has stopped and cannot be started again", id)
	}
	return errdefs.FailedPrecondition.Coded(errdefs.AlreadyStarted, id, "container %s is started already", id)
}
