package supervisor

import (
	"bufio"
	"slices"
	"strings"
	"testing"
)

func TestOnlyUnchangedAreasOfTheProgramAreGivenBack(t *testing.T) {
	const smaps = `00400000-008df000 r-xp 00000000 fe:00 10029840                           /usr/lib/engined/supervisor
Size:               4988 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me 
008df000-00e6f000 r--p 004df000 fe:00 10029840                           /usr/lib/engined/supervisor
Rss:                5124 kB
Anonymous:             0 kB
00e6f000-00e70000 r--p 00a6f000 fe:00 10029840                           /usr/lib/engined/supervisor
Anonymous:             4 kB
00e70000-00eda000 rw-p 00a70000 fe:00 10029840                           /usr/lib/engined/supervisor
Anonymous:             0 kB
7fcfa7201000-7fcfa7225000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
7fcfa8000000-7fcfa8001000 r--p 00000000 fe:00 7                          /usr/lib/libc.so.6
Anonymous:             0 kB
`
	areas, err := unchanged(bufio.NewScanner(strings.NewReader(smaps)), "/usr/lib/engined/supervisor")
	want := []mapping{{0x400000, 0x8df000}, {0x8df000, 0xe6f000}}
	if err != nil || !slices.Equal(areas, want) {
		t.Errorf("%x, %v, want %x", areas, err, want)
	}
	if areas, err := unchanged(bufio.NewScanner(strings.NewReader("x-y r-xp 0 0 0\n")), "/p"); err == nil {
		t.Errorf("nonsense: %v", areas)
	}
}

func TestProgramGoesOnWithoutItsPages(t *testing.T) {
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if got := strings.ToUpper("still here"); got != "STILL HERE" {
		t.Error(got)
	}
}
