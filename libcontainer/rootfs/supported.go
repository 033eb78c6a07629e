package rootfs

import (
	"maps"
	"slices"
)

// MountOptions lists, in order, the options that Build carries out itself, for
// the features document. "remount" is refused.
func MountOptions() []string {
	var names []string
	names = slices.AppendSeq(names, maps.Keys(flagOptions))
	names = slices.AppendSeq(names, maps.Keys(propagationOptions))
	names = slices.AppendSeq(names, maps.Keys(recursiveOptions))
	names = slices.DeleteFunc(names, func(name string) bool { return name == "remount" })
	slices.Sort(names)
	return names
}
