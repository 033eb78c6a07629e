package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/engined/engined/proto/errdefs"
)

func TestBelow(t *testing.T) {
	v2 := t.TempDir()
	if err := os.Mkdir(filepath.Join(v2, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	v1 := map[string]string{"cpu,cpuacct": "/c/cpu", "memory": "/c/memory"}
	for _, c := range []struct {
		name  string
		from  Location
		paths map[string]string
		want  Location
		kind  errdefs.Kind
	}{
		{"none", Location{V1: v1, V2: v2}, nil, Location{V1: v1, V2: v2}, ""},
		{"all of v1", Location{V1: v1}, map[string]string{"": "a/b"}, Location{V1: map[string]string{"cpu,cpuacct": "/c/cpu/a/b", "memory": "/c/memory/a/b"}}, ""},
		{"one of v1", Location{V1: v1}, map[string]string{"cpuacct": "a"}, Location{V1: map[string]string{"cpu,cpuacct": "/c/cpu/a", "memory": "/c/memory"}}, ""},
		{"unknown", Location{V1: v1}, map[string]string{"blkio": "a"}, Location{}, errdefs.InvalidArgument},
		{"outside", Location{V1: v1}, map[string]string{"": "../a"}, Location{}, errdefs.InvalidArgument},
		{"beside", Location{V1: v1}, map[string]string{"": "../cpu2"}, Location{}, errdefs.InvalidArgument},
		{"v2", Location{V2: v2}, map[string]string{"": "sub"}, Location{V2: filepath.Join(v2, "sub")}, ""},
		{"v2 missing", Location{V2: v2}, map[string]string{"": "no"}, Location{}, errdefs.NotFound},
		{"v2 controller", Location{V2: v2}, map[string]string{"cpu": "sub"}, Location{}, errdefs.InvalidArgument},
		{"hybrid", Location{V1: v1, V2: v2}, map[string]string{"": "no"}, Location{V1: map[string]string{"cpu,cpuacct": "/c/cpu/no", "memory": "/c/memory/no"}, V2: v2}, ""},
	} {
		got, err := At(c.from).Below(c.paths)
		if c.kind != "" || err != nil {
			if errdefs.KindOf(err) != c.kind {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if at := got.Location(); at.V2 != c.want.V2 || len(at.V1) != len(c.want.V1) || at.V1["memory"] != c.want.V1["memory"] || at.V1["cpu,cpuacct"] != c.want.V1["cpu,cpuacct"] {
			t.Errorf("%s: got %+v, want %+v", c.name, at, c.want)
		}
	}
}
