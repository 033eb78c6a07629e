package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// The bound on names counts their own bytes, so nothing else of an entry's
// header may stay in memory with them.
func TestNamesInArchivesKeepNoMoreThanTheirBytes(t *testing.T) {
	const entries, comment = 30, 900 << 10
	var packed bytes.Buffer
	writer := tar.NewWriter(&packed)
	for i := range entries { // no ASCII, so names are PAX records
		header := tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("ü%d", i), PAXRecords: map[string]string{"comment": strings.Repeat("x", comment)}}
		if i%2 == 0 {
			header.Typeflag, header.Linkname = tar.TypeLink, "ü1"
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	before := inUse()
	archive, err := spool(t.Context(), t.TempDir(), bytes.NewReader(packed.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if grown := inUse() - before; grown > entries*comment/2 {
		t.Errorf("%d entries keep %d bytes", entries, grown)
	}
	runtime.KeepAlive(&packed) // it is in both numbers
	if len(archive.files) != entries/2 || len(archive.links) != entries/2 {
		t.Errorf("%d files, %d links", len(archive.files), len(archive.links))
	}
}

// Of several entries with one name the last counts, and nothing else of the
// archive changes by them.
func TestOfEntriesWithOneNameTheLastCounts(t *testing.T) {
	for _, c := range []struct {
		entries [][2]string
		want    map[string]string
		left    int // files on disk
	}{
		{[][2]string{{"a", "old"}, {"a", "new"}, {"b", "other"}}, map[string]string{"a": "new", "b": "other"}, 2},
		{[][2]string{{"b", "other"}, {"a", "old"}, {"./a", "new"}, {"c", "third"}}, map[string]string{"a": "new", "b": "other", "c": "third"}, 3},
		{[][2]string{{"b", "other"}, {"a", "old"}, {"a", "->b"}}, map[string]string{"a": "other"}, 1},
		{[][2]string{{"b", "other"}, {"a", "->b"}, {"a", "new"}}, map[string]string{"a": "new", "b": "other"}, 2},
	} {
		archive, err := spool(t.Context(), t.TempDir(), packed(t, c.entries))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range c.want {
			if got, err := archive.read(name, 100); err != nil || string(got) != want {
				t.Errorf("%v: %s is %q, %v; want %q", c.entries, name, got, err, want)
			}
		}
		if left, err := os.ReadDir(archive.dir); err != nil || len(left) != c.left {
			t.Errorf("%v: on disk are %v, %v; want %d", c.entries, left, err, c.left)
		}
	}
}

// inUse is what the heap holds after what nobody needs is gone.
func inUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
