package supervisor

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/proto/errdefs"
	"github.com/engined/engined/proto/shim"
)

// configs are buffers for a config.json, which is rarely longer.
var configs = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// bundleProcess reads the process of a bundle's config.json, which is a tenth of
// that file and mostly its first: the rest is the runtime's to read.
func bundleProcess(bundle string) (*specs.Process, error) {
	path := filepath.Join(bundle, "config.json")
	buffer := configs.Get().(*[16 << 10]byte)
	defer configs.Put(buffer)
	data, err := shim.Read(path, buffer[:])
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
