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
	path := cachePath(keyOf(p), dir)
	stored, ok := readCached(path, keyOf(p))
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
	path := cachePath(keyOf(p), dir)
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

// A profile may be made so that its file's name is another's.
func TestTheFileOfAnotherProfileIsNotTaken(t *testing.T) {
	dir := t.TempDir()
	strict, lax := dockerd(t), profile(t, `{"defaultAction":"SCMP_ACT_ALLOW"}`)
	if _, err := Cached(lax, dir); err != nil {
		t.Fatal(err)
	}
	path := cachePath(keyOf(strict), dir)
	if err := os.Rename(cachePath(keyOf(lax), dir), path); err != nil {
		t.Fatal(err)
	}
	want := compile(t, strict)
	for range 2 { // compiled, then read
		if got, err := Cached(strict, dir); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("the filter is another's, %v", err)
		}
	}
	if _, ok := readCached(path, keyOf(strict)); !ok {
		t.Error("the file was not replaced")
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

// TestEveryFieldIsInTheKey: a field that is left out would give one profile
// the other's filter.
func TestEveryFieldIsInTheKey(t *testing.T) {
	one, two := uint(1), uint(2)
	full := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, DefaultErrnoRet: &one, Architectures: []specs.Arch{specs.ArchX86_64},
			Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, ListenerPath: "path", ListenerMetadata: "metadata",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "write"}, Action: specs.ActErrno, ErrnoRet: &one,
				Args: []specs.LinuxSeccompArg{{Index: 1, Value: 2, ValueTwo: 3, Op: specs.OpEqualTo}}}},
		}
	}
	changes := []func(*specs.LinuxSeccomp){
		func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKill },
		func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = nil },
		func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = &two },
		func(p *specs.LinuxSeccomp) { p.Architectures = append(p.Architectures, specs.ArchX32) },
		func(p *specs.LinuxSeccomp) { p.Flags = nil },
		func(p *specs.LinuxSeccomp) { p.Flags = []specs.LinuxSeccompFlag{} },
		func(p *specs.LinuxSeccomp) { p.ListenerPath = "" },
		func(p *specs.LinuxSeccomp) { p.ListenerMetadata = "" },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"read", "writev"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = []string{"readwrite"} },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActLog },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].ErrnoRet = nil },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args = nil },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Index = 0 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Value = 0 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].ValueTwo = 0 },
		func(p *specs.LinuxSeccomp) { p.Syscalls[0].Args[0].Op = specs.OpMaskedEqual },
		func(p *specs.LinuxSeccomp) { p.Syscalls = append(p.Syscalls, p.Syscalls[0]) },
	}
	seen := map[string]int{string(keyOf(full())): -1}
	for i, change := range changes {
		p := full()
		change(p)
		if other, taken := seen[string(keyOf(p))]; taken {
			t.Errorf("change %d has the key of %d", i, other)
		}
		seen[string(keyOf(p))] = i
	}
	for _, known := range []struct {
		of     reflect.Type
		fields int
	}{{reflect.TypeFor[specs.LinuxSeccomp](), 7}, {reflect.TypeFor[specs.LinuxSyscall](), 4}, {reflect.TypeFor[specs.LinuxSeccompArg](), 4}} {
		if n := known.of.NumField(); n != known.fields {
			t.Errorf("%s has %d fields, appendProfile knows %d", known.of, n, known.fields)
		}
	}
}
