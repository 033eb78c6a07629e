package seccomp

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCachedGivesWhatCompileGives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	p := dockerd(t)
	p.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}
	want := compile(t, p)
	for range 2 {
		got, err := Cached(p, dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("differs, %v", err)
		}
	}
	path, err := cachePath(p, dir)
	if err != nil {
		t.Fatal(err)
	}
	stored, ok := readCached(path)
	if !ok || !reflect.DeepEqual(stored, want) {
		t.Error("the file does not hold the filter")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	p.DefaultAction = specs.ActKill
	if got, err := Cached(p, dir); err != nil || reflect.DeepEqual(got, want) {
		t.Errorf("another profile has the same filter, %v", err)
	}
}

func TestBrokenCacheFilesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	p := dockerd(t)
	want, err := Cached(p, dir)
	if err != nil {
		t.Fatal(err)
	}
	path, err := cachePath(p, dir)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 3, 20, len(whole) - 8, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Cached(p, dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after a cut at %d: %v", n, err)
		}
		if again, err := os.ReadFile(path); err != nil || len(again) != len(whole) {
			t.Errorf("after a cut at %d the file has %d bytes", n, len(again))
		}
	}
}

func TestCacheThatCannotBeWrittenCostsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := Cached(dockerd(t), filepath.Join(file, "dir")); err != nil || len(f.Program) == 0 {
		t.Errorf("%v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range cacheEntries + 5 {
		p := profile(t, fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":%d}`, i+1))
		if _, err := Cached(p, dir); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 || len(entries) > cacheEntries {
		t.Errorf("%d files, %v", len(entries), err)
	}
}

func BenchmarkCached(b *testing.B) {
	dir := b.TempDir()
	p := dockerd(b)
	for b.Loop() {
		if _, err := Cached(p, dir); err != nil {
			b.Fatal(err)
		}
	}
}
