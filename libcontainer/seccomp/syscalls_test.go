package seccomp

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write syscalls.txt anew from the libseccomp that is installed")

// TestSyscallsAreLibseccomps compares the table with what the installed libseccomp
// says of the calls that both know: distributions add calls to a version.
func TestSyscallsAreLibseccomps(t *testing.T) {
	compiler, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	program := filepath.Join(t.TempDir(), "syscalls")
	if out, err := exec.Command(compiler, "-o", program, "testdata/syscalls.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	theirs, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("syscalls.txt", theirs, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	title, lines, _ := strings.Cut(string(theirs), "\n")
	same := strings.HasPrefix(syscallTable, title+"\n")
	known := 0
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		call, ok := syscalls()[fields[0]]
		if !ok {
			continue
		}
		known++
		for i, text := range fields[1:] {
			// Another version may have a call where this one has none.
			if (same || call[i] >= 0 && !strings.HasPrefix(text, "-")) && text != strconv.Itoa(call[i]) {
				t.Errorf("%s: number %s in column %d, ours is %d", fields[0], text, i, call[i])
			}
		}
	}
	if known < 400 {
		t.Errorf("%d calls known to both", known)
	}
}

// Each line has as many numbers as there are architectures, and no name comes twice.
func TestTableOfCallsIsWhole(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(syscallTable, "\n"), "\n")
	if want := "amd64 386 x32 arm64 arm riscv64"; !strings.HasSuffix(lines[0], " "+want) {
		t.Errorf("columns %q: expected %q", lines[0], want)
	}
	if want := len(lines) - 1 + len(newerCalls) + len(ownCalls); len(syscalls()) != want { // a name that the table has, too, would be older than these
		t.Errorf("%d names, expected %d", len(syscalls()), want)
	}
	for _, line := range lines {
		if strings.Count(line, " ") != columns {
			t.Errorf("%q: expected %d numbers", line, columns)
		}
	}
	if v := LibraryVersion(); len(strings.Split(v, ".")) != 3 {
		t.Errorf("version %q", v)
	}
	if a := families["amd64"]; a[0].number("write") != 1 || a[1].number("write") != 4 || a[2].number("write") != x32Bit+1 || a[0].number("no such call") != unknownCall {
		t.Error("numbers of write and of a call that there is not")
	}
	if a := families["amd64"][1]; a.number("socket") != -101 || a.number("shmat") != -221 { // i386Multiplexed
		t.Error("numbers of i386's multiplexed calls")
	}
	if a := families["amd64"]; a[0].number("mseal") != unix.SYS_MSEAL || a[2].number("rseq_slice_yield") != x32Bit|unix.SYS_RSEQ_SLICE_YIELD || a[1].number("uprobe") != unknownCall {
		t.Error("numbers of newer calls")
	}
	if !slices.IsSorted(lines[1:]) {
		t.Error("not sorted")
	}
}
