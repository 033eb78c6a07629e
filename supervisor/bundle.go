package supervisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

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
	part := member(data, "process")
	if part == nil {
		err := json.Unmarshal(data, &config)
		return config.Process, err
	}
	err := json.Unmarshal(part, &config.Process)
	return config.Process, err
}

// member returns the value of a member of a JSON object as it stands there. It
// returns nil if it does not find it or what it looks at is not plain JSON: who
// wants to know which decodes the whole.
func member(data []byte, name string) []byte {
	data, found := bytes.CutPrefix(bytes.TrimLeft(data, space), []byte("{"))
	for found {
		data = bytes.TrimLeft(data, space)
		end := stringEnd(data)
		if end == 0 {
			return nil
		}
		key := data[:end]
		if data, found = bytes.CutPrefix(bytes.TrimLeft(data[end:], space), []byte(":")); !found {
			return nil
		}
		data = bytes.TrimLeft(data, space)
		end = valueEnd(data)
		if string(key[1:len(key)-1]) == name {
			return data[:end:end]
		}
		data, found = bytes.CutPrefix(bytes.TrimLeft(data[end:], space), []byte(","))
	}
	return nil
}

const space = " \t\r\n"

// stringEnd returns the length of the string that data begins with, 0 if it does not.
func stringEnd(data []byte) int {
	if len(data) == 0 || data[0] != '"' {
		return 0
	}
	for i := 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// valueEnd returns the length of the value that data begins with, if it is one.
func valueEnd(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			length := stringEnd(data[i:])
			if length == 0 {
				return 0
			}
			i += length - 1
		case '{', '[':
			depth++
		case ',':
			if depth == 0 {
				return i
			}
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		}
	}
	return 0 // an object ends after each of its values
}
