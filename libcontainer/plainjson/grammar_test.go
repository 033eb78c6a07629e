package plainjson

import (
	"encoding/json"
	"strings"
	"testing"
)

var documents = []string{
	``, ` `, `{}`, ` [ ] `, `{"a":1,"b":[true,false,null,"x",{}]}`, `{"a":1,}`, `[1,]`, `[,1]`, `{"a"}`, `{"a":}`, `{1:2}`, `{"a":1 "b":2}`,
	`0`, `-0`, `00`, `01`, `-`, `1.`, `.5`, `1.5e`, `1e+5`, `1E-05`, `1e5.5`, `+1`, `0x1`, `1 2`, `NaN`, `truefalse`, `nul`, `nulll`,
	`"`, `"\`, `"\u`, `"\u12"`, `"\u12gG"`, `"\uABcd"`, `"\x"`, `"\/\b\f\n\r\t\\\""`, "\"\t\"", "\"\x7f\xff\x00\"", "\"\xff\x7f\"", "\u00a01", "[1\v]", "1\x00",
	strings.Repeat("[", 10000) + strings.Repeat("]", 10000), strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
	strings.Repeat(`{"a":`, 9999) + `[]` + strings.Repeat("}", 9999), strings.Repeat(`{"a":`, 10000) + `[]` + strings.Repeat("}", 10000),
}

func TestValidIsEncodingJSONs(t *testing.T) {
	for _, document := range append(documents, string(docker(t))) {
		wantSame(t, []byte(document))
	}
}

func wantSame(t *testing.T, document []byte) {
	t.Helper()
	if got, want := valid(document), json.Valid(document); got != want {
		t.Errorf("%.80q: %v, json.Valid: %v", document, got, want)
	}
}

func FuzzValid(f *testing.F) {
	for _, document := range documents {
		f.Add([]byte(document))
	}
	f.Add(docker(f))
	f.Fuzz(wantSame)
}

func BenchmarkValid(b *testing.B) {
	config := docker(b)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			valid(config)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			json.Valid(config)
		}
	})
}
