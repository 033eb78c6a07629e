package harness

import (
	"bytes"
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"
)

var (
	dumpBegin = []byte("=== BEGIN goroutine stack dump ===")
	dumpEnd   = []byte("=== END goroutine stack dump ===")
	goroutine = regexp.MustCompile(`(?m)^goroutine \d+ \[`)
)

// Goroutines asks the daemon for its stacks (SIGUSR1), and returns how many
// there are and the dump itself, which the daemon writes to its log.
func (d *Daemon) Goroutines(t testing.TB) (int, string) {
	t.Helper()
	before, err := os.ReadFile(d.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(d.Pid, syscall.SIGUSR1); err != nil {
		t.Fatalf("%s: %v", d.Name, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		after, err := os.ReadFile(d.Log)
		if err != nil {
			t.Fatal(err)
		}
		if dump, whole := between(after[len(before):]); whole {
			return len(goroutine.FindAll(dump, -1)), string(dump)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s wrote no goroutine stack dump after SIGUSR1\n%s", d.Name, d.tail())
		}
		time.Sleep(5 * time.Millisecond) // a file's growth, of another process
	}
}

// between returns what stands between the marks. In a structured log the dump
// may be one quoted value: its newlines are undone.
func between(log []byte) ([]byte, bool) {
	begin := bytes.Index(log, dumpBegin)
	if begin < 0 {
		return nil, false
	}
	dump, _, found := bytes.Cut(log[begin+len(dumpBegin):], dumpEnd)
	return bytes.ReplaceAll(dump, []byte(`\n`), []byte("\n")), found
}
