package rootfs

import (
	"maps"
	"slices"
)

// MountOptions lists, in order, the options that Build carries out itself, for
// the features document.
func MountOptions() []string {
	var names []string
	names = slices.AppendSeq(names, maps.Keys(flagOptions))
	names = slices.AppendSeq(names, maps.Keys(propagationOptions))
	names = slices.AppendSeq(names, maps.Keys(recursiveOptions))
	names = append(names, "idmap", "ridmap", "tmpcopyup")
	slices.Sort(names)
	return names
}
