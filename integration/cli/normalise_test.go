package cli

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// normaliser replaces what differs from run to run by words. Ids keep their
// identity: the first one seen is ID1 wherever it stands, long or short.
type normaliser struct {
	ids map[string]string // first 12 digits → word
}

func newNormaliser() *normaliser { return &normaliser{ids: map[string]string{}} }

var (
	longID   = regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b`)
	replaced = []struct {
		pattern *regexp.Regexp
		word    string
	}{
		{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d( [A-Z]+)?)?`), "TIME"},
		{regexp.MustCompile(`\b(Up |Exited \(\d+\) )?(Less than a second|About a (second|minute)|\d+ (seconds?|minutes?))( ago)?`), "${1}AGO"},
		{regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`), "MAC"},
		{regexp.MustCompile(`[ \t]+(\n|$)`), "$1"},
		{regexp.MustCompile(`/tmp/Test[^ ]*?/\d{3}\b`), "SCRATCH"},
		// Every release of Docker puts other words before the runtime's own.
		{regexp.MustCompile(`(failed to create [a-z ]*: )*OCI runtime (create|exec) failed: .*?(exec: ".*?)(: unknown)?(\.?\n)`), "RUNTIME $2: $3$5"},
		{regexp.MustCompile(`: is a directory: permission denied`), ": permission denied"},
		// Words that later releases of dockerd have changed, and engined has from them.
		{regexp.MustCompile(`\bContainer (\S+) is not running`), "container $1 is not running"},
		{regexp.MustCompile(`\bRange of CPUs`), "range of CPUs"},
		{regexp.MustCompile(`\b(fe00|ff00)::0\b`), "$1::"},
		{regexp.MustCompile(`\binvalid mount config for type "bind": invalid mount path`), "invalid mount path"},
		// The client of 20.10 says this when its wait loses a race.
		{regexp.MustCompile(`(?m)^time="?TIME"? level=error msg="error waiting for container: .*"\n`), ""},
		{regexp.MustCompile(` {3,}`), "   "}, // columns
	}
)

func (n *normaliser) normal(text string) string {
	for _, r := range replaced {
		text = r.pattern.ReplaceAllString(text, r.word)
	}
	// Numbers of twelve digits too: one id in three hundred has no letter.
	return longID.ReplaceAllStringFunc(text, func(id string) string {
		word, known := n.ids[id[:12]]
		if !known {
			word = fmt.Sprintf("ID%d", len(n.ids)+1)
			n.ids[id[:12]] = word
		}
		return word
	})
}

func TestNormalise(t *testing.T) {
	long := strings.Repeat("0123456789ab", 5) + "cdef"
	for _, test := range []struct{ in, want string }{
		{long + "\n", "ID1\n"},
		{"x " + long[:12] + " " + strings.Repeat("f", 12), "x ID1 ID2"},
		{"Up 3 seconds", "Up AGO"},
		{"Exited (0) Less than a second ago", "Exited (0) AGO"},
		{"2026-01-02T03:04:05.678901234Z x", "TIME x"},
		{"2026-01-02 03:04:05 +0000 UTC", "TIME"},
		{"123456789012 1234567890123", "ID1 1234567890123"},
		{"a      b  \n", "a   b\n"},
		{"x: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"a\": permission denied: unknown.\n",
			"x: RUNTIME create: exec: \"a\": permission denied.\n"},
	} {
		if got := newNormaliser().normal(test.in); got != test.want {
			t.Errorf("%q → %q, want %q", test.in, got, test.want)
		}
	}
}

func TestParseTranscript(t *testing.T) {
	steps, err := parse("# c\n$ docker ps\n? 3\n> a\n> b\n~ why\n\n$ true\n")
	if err != nil || len(steps) != 2 {
		t.Fatalf("%v %v", steps, err)
	}
	if s := steps[0]; s.command != "docker ps" || s.status != 3 || len(s.stdout) != 2 || s.differs != "why" || s.line != 2 {
		t.Errorf("%+v", s)
	}
	for _, bad := range []string{"? 1\n", "$ x\n? y\n", "$ x\n! y\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
