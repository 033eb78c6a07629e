package heap

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// TestGiveBack: of pages that the processor keeps for itself next to none stay,
// and after a mere collection they do.
func TestGiveBack(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as a shim has
	var collected, givenBack uint64
	for range 20 {
		collected += left(debug.FreeOSMemory)
		givenBack += left(GiveBack)
	}
	if givenBack > collected/2 {
		t.Errorf("%d bytes are free and in memory in 20 rounds, after debug.FreeOSMemory %d", givenBack, collected)
	}
}

// left has the processor keep pages that are in memory, and returns how many
// bytes are free and there after giveBack.
func left(giveBack func()) uint64 {
	taken := make([][]byte, 4*keptPages)
	for i := range taken {
		taken[i] = make([]byte, pageSize)
	}
	runtime.KeepAlive(taken)
	runtime.GC()
	replacePages()
	giveBack()
	free := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(free)
	return free[0].Value.Uint64()
}
