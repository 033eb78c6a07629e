package shim

import "testing"

func TestDetachKeysAreFoundAndLookalikesPassedOn(t *testing.T) {
	for _, c := range []struct {
		keys     string
		input    []string
		want     string
		detached bool
	}{
		{"\x10\x11", []string{"ab\x10", "\x11rest"}, "ab", true},
		{"\x10\x11", []string{"\x10", "x"}, "\x10x", false},
		{"\x10\x11", []string{"\x10\x10\x11"}, "\x10", true},
		{"\x10\x11", []string{"\x10"}, "", false}, // held
		{"aab", []string{"aa", "aab"}, "aa", true},
		{"aab", []string{"aac"}, "aac", false},
		{"abac", []string{"ababac"}, "ab", true},
		{"a", []string{"xya"}, "xy", true},
	} {
		d := &detachKeys{keys: []byte(c.keys)}
		got, detached := "", false
		for _, input := range c.input {
			var rest []byte
			if rest, detached = d.filter([]byte(input)); detached {
				got += string(rest)
				break
			}
			got += string(rest)
		}
		if got != c.want || detached != c.detached {
			t.Errorf("keys %q, input %q: got %q, %v", c.keys, c.input, got, detached)
		}
	}
}

func TestRuntimesLastErrorIsClassified(t *testing.T) {
	log := `{"level":"error","msg":"old"}` + "\n" + `{"level":"error","msg":"exec: \"x\": executable file not found in $PATH"}` + "\n" +
		`{"level":"warning","msg":"w"}` + "\n{torn"
	wire, found := lastError([]byte(log))
	if !found {
		t.Fatal("not found")
	}
	if got := classify(wire.Text); got.Code != "exec-not-found" || got.Subject != "x" {
		t.Errorf("got %+v", got)
	}
	if _, found := lastError([]byte("\n\nnonsense\n")); found {
		t.Error("nonsense is an error line")
	}
	wire, _ = lastError([]byte(`{"level":"error","msg":"m","kind":"not-found","code":"no-such-container","subject":"c"}`))
	if wire.Code != "no-such-container" || wire.Subject != "c" || wire.Kind != "not-found" {
		t.Errorf("ocirun's keys are lost: %+v", wire)
	}
}
