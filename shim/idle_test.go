package shim_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	proto "github.com/engined/engined/proto/shim"
)

// Shared pages are counted by share (PSS): a hundred shims, where the goal is
// 0.7 MiB and five threads each, have less of them than the thirty that are
// started unless SHIM_TEST_FULL is set.
const (
	allowedThreads = 5
	allowedPSS     = 800 // KiB, of thirty
	allowedPSSFull = 717 // KiB, of a hundred
)

// TestIdleShimsAreSmall keeps what was reached; see the package comment.
func TestIdleShimsAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many containers")
	}
	shims, allowedPSS := 30, allowedPSS
	if os.Getenv("SHIM_TEST_FULL") != "" {
		shims, allowedPSS = 100, allowedPSSFull
	}
	if os.Getenv("SHIM_TEST_BUILD_FLAGS") != "" {
		t.Skip("another shim than the one that is shipped")
	}
	var all []*box
	for range shims {
		b := newBox(t, []string{"/bin/sleep", "1000"}, nil)
		b.start(proto.Request{Log: b.jsonLog(), OpenStdin: true})
		all = append(all, b)
	}
	time.Sleep(2 * time.Second) // longer than idleAfter: what is measured is rest
	pss, threads := measure(t, all)
	for late := time.Now().Add(time.Minute); pss/shims > allowedPSS && time.Now().Before(late); {
		time.Sleep(time.Second) // a busy machine: some come to it later
		pss, threads = measure(t, all)
	}
	t.Logf("%d KiB PSS a shim, at most %d threads", pss/shims, threads)
	if pss/shims > allowedPSS || threads > allowedThreads {
		t.Errorf("%d KiB PSS and %d threads, at most %d and %d are allowed", pss/shims, threads, allowedPSS, allowedThreads)
	}
}

// measure returns the shims' memory together and the most threads of one.
func measure(t *testing.T, all []*box) (pss, threads int) {
	t.Helper()
	for _, b := range all {
		pid := b.command.Process.Pid
		pss += number(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid), `(?m)^Pss: +(\d+)`)
		threads = max(threads, number(t, fmt.Sprintf("/proc/%d/status", pid), `(?m)^Threads:\s+(\d+)`))
	}
	return pss, threads
}

func number(t *testing.T, path, pattern string) int {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	match := regexp.MustCompile(pattern).FindSubmatch(data)
	if match == nil {
		t.Fatalf("%s has no %s", path, pattern)
	}
	n, err := strconv.Atoi(string(match[1]))
	must(t, err)
	return n
}
