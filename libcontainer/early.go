package libcontainer

import (
	"bytes"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/libcontainer/plainjson"
	"github.com/engined/engined/libcontainer/rootfs"
)

// early is what the clone depends on. It is cut out of config.json before the
// whole is decoded, so that the stage starts and makes the namespaces meanwhile: that
// takes as long as decoding and what else is to be done before the plan, 0.6 ms. The
// decoded spec is compared with it and
// refused if it differs, by keys in odd case or given twice.
type early struct {
	terminal    bool
	namespaces  []specs.LinuxNamespace
	cgroupsPath string
}

// readEarly returns false if it cannot tell; the decoder finds out why.
func readEarly(config []byte) (early, bool) {
	var e early
	e.terminal = string(plainjson.Member(config, "process", "terminal")) == "true"
	namespaces := plainjson.Member(config, "linux", "namespaces")
	if namespaces == nil || plainjson.Unmarshal(namespaces, &e.namespaces) != nil {
		return e, false
	}
	if path := plainjson.Member(config, "linux", "cgroupsPath"); path != nil && plainjson.Unmarshal(path, &e.cgroupsPath) != nil {
		return e, false
	}
	// What startContainer hooks need, and the sources of id-mapped binds, are opened
	// before the clone.
	if bytes.Contains(config, []byte("\"startContainer\"")) {
		return e, false
	}
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
	if len(startHooks(spec)) > 0 {
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
