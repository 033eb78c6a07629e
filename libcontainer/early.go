package libcontainer

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/rootfs"
)

// early is what the clone depends on. It is cut out of config.json before the
// whole is decoded, so that the kernel makes the namespaces meanwhile: decoding
// takes as long as the clone, 0.7 ms. The decoded spec is compared with it and
// refused if it differs, by keys in odd case or given twice.
type early struct {
	terminal    bool
	namespaces  []specs.LinuxNamespace
	cgroupsPath string
}

// readEarly returns false if it cannot tell; the decoder finds out why.
func readEarly(config []byte) (early, bool) {
	var e early
	e.terminal = string(member(config, "process", "terminal")) == "true"
	namespaces := member(config, "linux", "namespaces")
	if namespaces == nil || json.Unmarshal(namespaces, &e.namespaces) != nil {
		return e, false
	}
	if path := member(config, "linux", "cgroupsPath"); path != nil && json.Unmarshal(path, &e.cgroupsPath) != nil {
		return e, false
	}
	// Sources of id-mapped binds are opened before the clone.
	if bytes.Contains(config, []byte("Mappings\"")) || bytes.Contains(config, []byte("idmap\"")) {
		return e, false
	}
	for _, ns := range e.namespaces {
		// Those need more than a flag: id maps, a child, a thread that joined.
		if ns.Type == specs.UserNamespace || ns.Type == specs.TimeNamespace && ns.Path == "" || ns.Type == specs.PIDNamespace && ns.Path != "" {
			return e, false
		}
	}
	return e, true
}

// agrees reports whether the decoded spec says the same.
func (e *early) agrees(spec *specs.Spec) bool {
	if e.terminal != spec.Process.Terminal || e.cgroupsPath != spec.Linux.CgroupsPath || len(e.namespaces) != len(spec.Linux.Namespaces) {
		return false
	}
	if slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return rootfs.IDMapped(&m) }) {
		return false
	}
	for i, ns := range spec.Linux.Namespaces {
		if e.namespaces[i] != ns {
			return false
		}
	}
	return true
}

// member returns the raw value that a path of keys leads to, nil if there is
// none or data is not JSON as far as it was looked at.
func member(data []byte, path ...string) []byte {
	for _, key := range path {
		if data = lookUp(data, key); data == nil {
			return nil
		}
	}
	return data
}

// lookUp returns the value of a key of the object that data starts with.
func lookUp(data []byte, key string) []byte {
	data = skipSpace(data)
	if len(data) == 0 || data[0] != '{' {
		return nil
	}
	data = data[1:]
	for {
		data = skipSpace(data)
		name := value(data)
		rest := skipSpace(data[len(name):])
		if len(name) < 2 || name[0] != '"' || len(rest) == 0 || rest[0] != ':' {
			return nil
		}
		rest = skipSpace(rest[1:])
		found := value(rest)
		if found == nil {
			return nil
		}
		if string(name[1:len(name)-1]) == key {
			return found
		}
		data = skipSpace(rest[len(found):])
		if len(data) == 0 || data[0] != ',' {
			return nil
		}
		data = data[1:]
	}
}

func skipSpace(data []byte) []byte { return bytes.TrimLeft(data, " \t\r\n") }

// value returns the value that data starts with, nil if it does not end.
func value(data []byte) []byte {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			end := stringEnd(data[i+1:])
			if end < 0 {
				return nil
			}
			i += end + 1
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				return data[:i]
			}
			depth--
		case ',', ':', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return data[:i]
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return data[:i+1]
		}
	}
	return nil
}

// stringEnd returns where the closing quote is.
func stringEnd(data []byte) int {
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
