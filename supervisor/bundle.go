package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/proto/errdefs"
)

// bundleProcess reads the process of a bundle's config.json, which is a tenth of
// that file and mostly its first: the rest is the runtime's to read.
func bundleProcess(bundle string) (*specs.Process, error) {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	var process *specs.Process
	if err == nil {
		process, err = processOf(data)
	}
	if err != nil {
		return nil, errdefs.InvalidArgument.Coded(errdefs.BundleInvalid, bundle, "bundle %s: %w", bundle, fmt.Errorf("reading %s: %w", path, err))
	}
	if process == nil {
		return nil, errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "process", "bundle %s: config.json has no process", bundle)
	}
	return process, nil
}

// processOf decodes the process of a config.json, nil if it has none.
func processOf(data []byte) (*specs.Process, error) {
	var config struct {
		Process *specs.Process `json:"process"`
	}
	part := plainjson.Member(data, "process")
	if part == nil {
		err := json.Unmarshal(data, &config)
		return config.Process, err
	}
	err := json.Unmarshal(part, &config.Process)
	return config.Process, err
}
