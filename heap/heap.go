// Package heap gives back to the machine what Go's heap does not use. Idle
// processes of ours are many, or there for months.
package heap

import (
	"runtime"
	"runtime/debug"
)

// keptPages is how many pages Go's allocator keeps for each processor, and
// pageSize is theirs.
const keptPages, pageSize = 64, 8 << 10

// GiveBack collects, twice, so what pools hold goes too, and has the kernel take
// the free pages: also those that Go keeps for the processor that this runs on, up
// to half a megabyte, which [debug.FreeOSMemory] leaves as they are, in memory or
// not. Those of other processors it takes only where nothing runs on them.
func GiveBack() {
	debug.FreeOSMemory()
	replacePages()
	debug.FreeOSMemory()
}

// replacePages takes as many pages as this processor may keep, so that it has to
// fetch others, of those given back before; what was taken becomes garbage.
func replacePages() {
	taken := make([][]byte, keptPages)
	for i := range taken {
		taken[i] = make([]byte, pageSize)
	}
	runtime.KeepAlive(taken)
}
