package layer

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// The bound on names counts their own bytes, so nothing else of an entry's
// header may stay in memory with them.
func TestNamesKeepNoMoreThanTheirBytes(t *testing.T) {
	needRoot(t)
	const entries, comment = 30, 900 << 10
	var all []entry
	for i := range entries {
		e := dir(fmt.Sprintf("ü%d", i), 0o755) // no ASCII, so a PAX record
		if i%2 == 0 {
			e = file(fmt.Sprintf("ü%d", i), "")
		}
		e.PAXRecords = map[string]string{"comment": strings.Repeat("x", comment)}
		all = append(all, e)
	}
	raw := tarOf(t, all...)
	for name, style := range map[string]whiteoutStyle{"nodes": whiteoutNodes, "deletes": whiteoutDeletes} {
		t.Run(name, func(t *testing.T) {
			u, split := unpacking(t, t.TempDir(), style)
			before := inUse()
			if _, err := u.all(bytes.NewReader(raw), split); err != nil {
				t.Fatal(err)
			}
			if grown := inUse() - before; grown > entries*comment/2 {
				t.Errorf("%d entries keep %d bytes", entries, grown)
			}
			if err := split.close(); err != nil {
				t.Error(err)
			}
			if len(u.times) != entries/2 || len(split.seen) != entries {
				t.Errorf("%d times, %d names", len(u.times), len(split.seen))
			}
		})
	}
}

// inUse is what the heap holds after what nobody needs is gone.
func inUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
