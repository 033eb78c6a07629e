package system

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
)

// Sources is where facts of other nouns come from.
type Sources struct {
	Containers interface {
		Counts() (running, paused, stopped int)
	}
	Storage interface {
		Name() string
		Status() [][2]string
	}
	Supervisor interface {
		Version(ctx context.Context) (version, revision string, err error)
	}
	Images func(ctx context.Context) (int, error) // how many there are
}

// Settings are the parts of the configuration that are shown.
type Settings struct {
	Version        string // of this build
	DataRoot       string
	Runtime        string // path of the OCI runtime
	LogDriver      string
	LogDrivers     []string // that can be asked for
	NetworkDrivers []string
	Labels         []string
	Debug          bool
}

// Service describes the engine it runs in.
type Service struct {
	sources Sources
	id      string

	mu       sync.Mutex // guards settings and runtime
	settings Settings
	runtime  component // last answer of the runtime's --version
}

// Open returns the service. The engine's id is made once and kept below the
// data root.
func Open(settings Settings, sources Sources) (*Service, error) {
	id, err := loadID(filepath.Join(settings.DataRoot, "engine-id"))
	if err != nil {
		return nil, err
	}
	return &Service{sources: sources, id: id, settings: settings}, nil
}

// Change shows other labels and another debug mode from now on.
func (s *Service) Change(labels []string, debug bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings.Labels, s.settings.Debug = labels, debug
}

// ID is the engine's own, the same for as long as its data root.
func (s *Service) ID() string { return s.id }

// Name is the host's.
func (s *Service) Name() string { return host().name }

func (s *Service) current() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

var validID = regexp.MustCompile(`^[0-9a-f-]{36}$`)

// loadID reads the engine's id or makes one. An empty file is what a power cut
// leaves of one that was written and not synced.
func loadID(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil && len(content) > 0 {
		if id := strings.TrimSpace(string(content)); validID.MatchString(id) {
			return id, nil
		}
		return "", fmt.Errorf("%s: expected a UUID, got %q", path, content)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the engine's id: %w", err)
	}
	id := newID()
	temporary := path + ".new"
	if err := writeSynced(temporary, id+"\n"); err != nil {
		return "", fmt.Errorf("writing the engine's id: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return "", fmt.Errorf("writing the engine's id: %w", err)
	}
	return id, nil
}

// writeSynced writes a file whose content is on disk before its next name is.
func writeSynced(path, content string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	return errors.Join(err, file.Sync(), file.Close())
}

// newID returns a random UUID (RFC 9562 version 4).
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// revision returns the source revision and its time as the Go command noted them.
func revision() (commit, at string) {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			commit = setting.Value[:min(len(setting.Value), 12)]
		case "vcs.time":
			at = setting.Value
		}
	}
	return commit, at
}
