package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, test := range []struct {
		name                    string
		events                  string
		passed, failed, skipped int
		good                    bool
		shows                   string
	}{
		{"nothing ran", ``, 0, 0, 0, false, ""},
		{"a package without tests is no test", `{"Action":"start","Package":"p"}
			{"Action":"skip","Package":"p"}`, 0, 0, 0, false, ""},
		{"passes and skips", `{"Action":"start","Package":"p"}
			{"Action":"run","Package":"p","Test":"A"}
			{"Action":"output","Package":"p","Test":"A","Output":"noise\n"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"run","Package":"p","Test":"B"}
			{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:3: needs root\n"}
			{"Action":"skip","Package":"p","Test":"B"}
			{"Action":"pass","Package":"p","Elapsed":0.1}`, 1, 0, 1, true, "1  needs root"},
		{"a failure shows its output", `{"Action":"start","Package":"p"}
			{"Action":"run","Package":"p","Test":"A"}
			{"Action":"output","Package":"p","Test":"A","Output":"got 1, want 2\n"}
			{"Action":"fail","Package":"p","Test":"A"}
			{"Action":"fail","Package":"p"}`, 0, 1, 0, false, "got 1, want 2"},
		{"a package that fails by itself", `{"Action":"start","Package":"p"}
			{"Action":"output","Package":"p","Output":"panic: x\n"}
			{"Action":"fail","Package":"p"}`, 0, 1, 0, false, "panic: x"},
		{"a build that fails", `{"Action":"build-output","ImportPath":"p [p.test]","Output":"undefined: x\n"}
			{"Action":"build-fail","ImportPath":"p [p.test]"}
			{"Action":"start","Package":"p"}
			{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`, 0, 1, 0, false, "undefined: x"},
		{"a test that never ends", `{"Action":"start","Package":"p"}
			{"Action":"run","Package":"p","Test":"A"}
			{"Action":"output","Package":"p","Test":"A","Output":"so far\n"}`, 0, 2, 0, false, "so far"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			got := newTally(&out)
			if err := got.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			got.report(0)
			if got.passed != test.passed || got.failed != test.failed || got.skipped != test.skipped || got.good() != test.good {
				t.Errorf("%d passed, %d failed, %d skipped, good %v\n%s", got.passed, got.failed, got.skipped, got.good(), out.String())
			}
			if !strings.Contains(out.String(), test.shows) {
				t.Errorf("does not show %q:\n%s", test.shows, out.String())
			}
		})
	}
}

func TestSplit(t *testing.T) {
	if got := split([]string{"--", "a", "b", "--", "c"}); len(got) != 2 || len(got[0]) != 2 || got[1][0] != "c" {
		t.Errorf("%v", got)
	}
	if got := split([]string{"a", "--", "b"}); got != nil {
		t.Errorf("words before the first --: %v", got)
	}
}

func TestACommandsOwnFailureCounts(t *testing.T) {
	var out bytes.Buffer
	total := newTally(&out)
	if err := run([]string{"sh", "-c", "exit 3"}, total); err == nil {
		t.Error("exit 3 without an event is no error")
	}
	if err := run([]string{"sh", "-c", "echo words"}, total); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "words") {
		t.Error("a line that is no event is not shown")
	}
}
