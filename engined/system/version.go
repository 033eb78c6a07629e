package system

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	apisystem "github.com/moby/moby/api/types/system"
)

// Version answers GET /version; the API's own versions are the caller's.
func (s *Service) Version(ctx context.Context) (apisystem.VersionResponse, error) {
	commit, built := revision()
	kernel, version := host().kernel, s.current().Version
	return apisystem.VersionResponse{
		Platform: apisystem.PlatformInfo{Name: "engined"},
		Version:  version,
		Os:       runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: commit, BuildTime: built,
		GoVersion: runtime.Version(), KernelVersion: kernel,
		Components: []apisystem.ComponentVersion{
			// Clients look for this name and print its details their way.
			{Name: "Engine", Version: version, Details: map[string]string{
				"GitCommit": commit, "BuildTime": built, "GoVersion": runtime.Version(),
				"Os": runtime.GOOS, "Arch": runtime.GOARCH, "KernelVersion": kernel, "Experimental": "false",
			}},
			s.supervisorVersion(ctx).response("supervisor"),
			s.runtimeVersion(ctx).response("ocirun"),
		},
	}, nil
}

// component is what is known of one of the other binaries.
type component struct {
	version, commit string
	trouble         string // why the version is not known

	modified time.Time // of the binary, when it was asked
}

func (c component) response(name string) apisystem.ComponentVersion {
	details := map[string]string{"GitCommit": c.commit}
	if c.trouble != "" {
		details["Error"] = c.trouble
	}
	return apisystem.ComponentVersion{Name: name, Version: c.version, Details: details}
}

func (s *Service) supervisorVersion(ctx context.Context) component {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	version, commit, err := s.sources.Supervisor.Version(ctx)
	if err != nil {
		return component{version: "N/A", trouble: err.Error()}
	}
	return component{version: version, commit: commit}
}

// runtimeVersion asks the runtime binary, once for each binary that is there.
func (s *Service) runtimeVersion(ctx context.Context) component {
	path := s.current().Runtime
	stat, err := os.Stat(path)
	if err != nil {
		return component{version: "N/A", trouble: err.Error()}
	}
	s.mu.Lock()
	known := s.runtime
	s.mu.Unlock()
	if !known.modified.IsZero() && known.modified.Equal(stat.ModTime()) {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return component{version: "N/A", trouble: fmt.Sprintf("%s --version: %v", path, err)}
	}
	known = parseRuntimeVersion(string(output))
	known.modified = stat.ModTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runtime = known
	return known
}

// parseRuntimeVersion reads what runc and its kin print:
//
//	runc version 1.1.5+ds1
//	commit: 1.1.5+ds1-1+deb12u1
//	spec: 1.0.2-dev
func parseRuntimeVersion(output string) component {
	found := component{version: "N/A", trouble: "no version in the answer"}
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if _, version, ok := strings.Cut(line, " version "); ok {
			found.version, found.trouble = version, ""
		}
		if commit, ok := strings.CutPrefix(line, "commit: "); ok {
			found.commit = commit
		}
	}
	return found
}
