package seccomp

import (
	_ "embed" // syscalls.txt
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// syscallTable is what libseccomp knows, made by its own functions
// (testdata/syscalls.c): a line with its version and the architectures, then one
// for each call with its numbers there. Those below zero are libseccomp's own, for
// calls that an architecture does not have.
//
// A table and not the library, so that the program can be linked with any C
// library: the archive of libseccomp is made for one.
//
//go:embed syscalls.txt
var syscallTable string

// unknownCall is the number of a name that no architecture has (libseccomp's
// __NR_SCMP_ERROR).
const unknownCall = -1

// columns are the architectures that a line has numbers for.
const (
	columnAMD64 = iota
	column386
	columnX32
	columnARM64
	columnARM
	columnRISCV64
	columns
)

// newerCalls are those that Linux has had since, from firstNewer on. They have the
// same number everywhere, but for x32's bit.
var newerCalls = []string{
	"statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal", "setxattrat", "getxattrat",
	"listxattrat", "removexattrat", "open_tree_attr", "file_getattr", "file_setattr", "listns", "rseq_slice_yield",
}

const firstNewer = unix.SYS_STATMOUNT

// ownCalls are of one architecture.
var ownCalls = []struct {
	name           string
	column, number int
}{
	{"uretprobe", columnAMD64, 335}, // the kernel puts these into programs that it traces
	{"uprobe", columnAMD64, 336},
	{"riscv_hwprobe", columnRISCV64, 258},
}

// syscalls is the table by name, with what is newer. It is read where a filter is
// compiled, not where one is found in the cache.
var syscalls = sync.OnceValue(func() map[string][columns]int {
	_, lines, _ := strings.Cut(syscallTable, "\n")
	calls := make(map[string][columns]int, strings.Count(lines, "\n"))
	for line := range strings.Lines(lines) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var numbers [columns]int
		for i := range numbers {
			var text string
			text, rest, _ = strings.Cut(rest, " ")
			number, err := strconv.Atoi(text)
			if err != nil {
				panic("seccomp: syscalls.txt: " + err.Error()) // TestTableOfCallsIsWhole reads every line
			}
			numbers[i] = number
		}
		calls[name] = numbers
	}
	for i, name := range newerCalls {
		number := firstNewer + i
		calls[name] = [columns]int{number, number, x32Bit | number, number, number, number}
	}
	for _, own := range ownCalls {
		numbers := [columns]int{unknownCall, unknownCall, unknownCall, unknownCall, unknownCall, unknownCall}
		numbers[own.column] = own.number
		calls[own.name] = numbers
	}
	return calls
})

// number resolves a call's name. A negative number is one of libseccomp's for a
// call that the architecture does not have.
func (a arch) number(name string) int {
	numbers, ok := syscalls()[name]
	if !ok {
		return unknownCall
	}
	return numbers[a.column]
}

// LibraryVersion is that of the libseccomp whose tables these are, as 2.5.4.
func LibraryVersion() string {
	version, _, _ := strings.Cut(syscallTable, " ")
	return strings.TrimPrefix(version, "libseccomp-")
}
