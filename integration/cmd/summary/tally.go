package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // build-output and build-fail
	Test       string
	Output     string
	Elapsed    float64

	FailedBuild string // a package's fail event: what did not build
}

// tally counts tests, subtests included, and keeps the output of those that
// have not ended.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	open                    map[string][]string // package[/test] → output so far
	failures                map[string]int      // package → failed tests
	skips                   map[string]int      // reason → tests
}

func newTally(out io.Writer) *tally {
	return &tally{out: out, open: map[string][]string{}, failures: map[string]int{}, skips: map[string]int{}}
}

// read takes events until the end of the stream. What has begun and not ended
// by then has failed.
func (t *tally) read(events io.Reader) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(t.out, lines.Text()) // a command's own words
			continue
		}
		t.take(e)
	}
	for name := range t.open {
		t.fail(name, "did not end")
	}
	return lines.Err()
}

func (t *tally) take(e event) {
	name := e.Package
	if e.Test != "" {
		name += "." + e.Test
	}
	if e.ImportPath != "" {
		name = e.ImportPath
	}
	switch e.Action {
	case "start", "run":
		t.open[name] = nil
	case "output", "build-output":
		t.open[name] = append(t.open[name], e.Output)
	case "pass":
		if e.Test != "" {
			t.passed++
		} else {
			fmt.Fprintf(t.out, "ok    %-70s %6.1fs\n", e.Package, e.Elapsed)
		}
		delete(t.open, name)
	case "skip":
		t.skip(e, name)
	case "build-fail":
		t.fail(name, "does not build")
	case "fail":
		t.failEvent(e, name)
	}
}

// skip counts a skipped test. A package without tests is none.
func (t *tally) skip(e event, name string) {
	if e.Test != "" {
		t.skipped++
		t.skips[reason(t.open[name])]++
	}
	delete(t.open, name)
}

// failEvent shows a failed test, or a package that failed without one: it did
// not build, crashed, or its TestMain failed.
func (t *tally) failEvent(e event, name string) {
	if e.Test != "" {
		t.failures[e.Package]++
		t.fail(name, "failed")
		return
	}
	if t.failures[e.Package] == 0 && e.FailedBuild == "" {
		t.fail(name, "failed")
		return
	}
	fmt.Fprintf(t.out, "FAIL  %s\n", e.Package)
	delete(t.open, name)
}

func (t *tally) fail(name, how string) {
	t.failed++
	fmt.Fprintf(t.out, "\n----- %s: %s\n%s-----\n", name, how, strings.Join(t.open[name], ""))
	delete(t.open, name)
}

// broken counts a command that failed by itself.
func (t *tally) broken(err error) {
	t.failed++
	fmt.Fprintf(t.out, "\n----- %v\n", err)
}

func (t *tally) good() bool { return t.failed == 0 && t.passed > 0 }

func (t *tally) report(took time.Duration) {
	if len(t.skips) > 0 {
		fmt.Fprintln(t.out, "\nskipped:")
	}
	for _, why := range sortedKeys(t.skips) {
		fmt.Fprintf(t.out, "  %4d  %s\n", t.skips[why], why)
	}
	fmt.Fprintf(t.out, "\n%d passed, %d failed, %d skipped (%s)\n", t.passed, t.failed, t.skipped, took.Round(time.Second))
}

// reason finds what t.Skip said: the line that names a file, between the marks
// that the testing package prints.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, found := strings.Cut(line, ".go:"); found {
			if _, said, found := strings.Cut(text, ": "); found {
				return said
			}
		}
	}
	return "no reason given"
}

func sortedKeys(m map[string]int) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
