package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// More layers for TestHostileLayersChangeNothingOutside: duplicates that change
// their type, and attributes that mean something to the kernel.
func init() {
	maps.Copy(hostile, map[string][]entry{
		"directory, link out, directory again": {dir("d/", 0o755), link("d", "OUT"), dir("d/", 0o777), file("d/victim", "evil")},
		"file, link out, file again":           {file("f", "1"), link("f", "OUT/victim"), file("f", "evil")},
		"hard link, link out, hard link again": {file("f", "1"), hard("h", "f"), link("f", "OUT/victim"), hard("h", "f"), file("h", "evil")},
		"link in the parent's place":           {dir("a/", 0o755), dir("a/b/", 0o755), link("a", "OUT"), file("a/b/x", "evil"), file("a/victim", "evil")},
		"link to the root, then dots":          {link("l", "/"), file("l/../../OUTNAME/victim", "evil"), file("l/OUT/victim", "evil")},
		"link to dots":                         {link("l", ".."), file("l/OUTNAME/victim", "evil"), file("l/../OUTNAME/victim", "evil")},
		"chain of links out":                   {link("a", "b/c"), dir("b/", 0o755), link("b/c", "../d"), link("d", "OUT"), file("a/victim", "evil")},
		"device of a disk, then written":       {device("sda", tar.TypeBlock, 8, 0), file("sda", "evil")},
		"device as a directory":                {device("kmsg", tar.TypeChar, 1, 11), file("kmsg/victim", "evil")},
		"whiteout that is a device":            {device("x", tar.TypeChar, 0, 0), file("x", "y")},
		"whiteout of a whiteout":               {file(".wh..wh.x", ""), file(".wh..wh..wh..opq", ""), file(".wh..wh.plnk", "")},
		"whiteout with dots behind":            {file(".wh.../../OUTNAME/victim", ""), file("a/.wh.x/../../../OUTNAME", "")},
		"whiteout of a hard link's target":     {file("f", "1"), file(".wh.f", ""), hard("h", "f")},
		"opaque root":                          {file(".wh..wh..opq", ""), file("victim", "1")},
		"set-user-id link":                     {{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUT/victim", Mode: 0o6777, Uid: 1}}},
		"owner of a link's target":             {link("l", "OUT/victim"), {Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "OUT/victim", Uid: 99, Gid: 99}}},
		"opaque by attribute":                  {attributed("OUTNAME/", "trusted.overlay.opaque", "y"), attributed("d/", "user.overlay.opaque", "y")},
		"metacopy by attribute":                {attributed("d/", "trusted.overlay.metacopy", ""), attributed("e/", "trusted.overlay.origin", "x")},
		"attribute without a name":             {attributed("d/", "", "x"), attributed("e/", "nowhere.x", "x")},
		"attribute that is too large":          {attributed("d/", "user.x", strings.Repeat("x", 100_000))},
		"attribute through a link":             {link("l", "OUT"), attributed("l/", "user.x", "y")},
		"capabilities of rubbish":              {attributed("d/", "security.capability", "rubbish")},
		"label of a security module":           {attributed("d/", "security.selinux", "system_u:object_r:shadow_t")},
		"sparse by records": {{Header: tar.Header{Typeflag: tar.TypeReg, Name: "s", Mode: 0o644,
			PAXRecords: map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "../OUTNAME/victim", "GNU.sparse.realsize": "99"}}}},
		"name that is too long":       {file(strings.Repeat("x", 300), "x")},
		"path that is too long":       {file(strings.Repeat("x/", 3000)+"y", "x")},
		"name of rubbish":             {file("\xff\xfe/\x01\x1b[2J\n", "x"), link("l", "\xff")},
		"link that is too long":       {link("l", strings.Repeat("x", 5000))},
		"negative owner, no time":     {{Header: tar.Header{Typeflag: tar.TypeReg, Name: "n", Uid: -1, Gid: -1, Mode: 0o644, ModTime: time.Unix(-1<<40, 0)}}},
		"mode of everything":          {{Header: tar.Header{Typeflag: tar.TypeDir, Name: "m/", Mode: 0o177777}}, file("m/x", "x")},
		"dots and slashes everywhere": {file("//.//./x/.././y", "x"), dir("./././/", 0o755), dir("/", 0o777)},
	})
}

func device(name string, kind byte, major, minor int64) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor}}
}

func attributed(name, attribute, value string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, PAXRecords: map[string]string{xattrPrefix + attribute: value}}}
}

func TestThereAreFiftyHostileLayers(t *testing.T) {
	if len(hostile) < 50 {
		t.Errorf("%d", len(hostile))
	}
}

// crafted are tars that no library writes.
func crafted(t *testing.T) map[string][]byte {
	plain := tarOf(t, file("a", "body"))
	patched := func(at int, text string) []byte {
		raw := bytes.Clone(plain)
		copy(raw[paxHeader(t, plain)+at:], text)
		return checksummed(raw, paxHeader(t, plain))
	}
	deep := func(n int) []byte {
		var entries []entry
		for i := range n {
			entries = append(entries, dir(strings.Repeat("d/", i+1), 0o755))
		}
		return tarOf(t, entries...)
	}
	return map[string][]byte{
		"a zero byte in a record":      bytes.Replace(tarOf(t, file("n"+strings.Repeat("x", 120), "")), []byte("path=n"), []byte("path=\x00"), 1),
		"a record's length lies":       bytes.Replace(tarOf(t, file("n"+strings.Repeat("x", 120), "")), []byte(" path="), []byte("9path="), 1),
		"a size below zero":            patched(124, "-0000000001\x00"),
		"a size of everything":         patched(124, "77777777777\x00"),
		"a device of rubbish":          patched(329, "zzzzzzz\x00"),
		"a checksum that is wrong":     bytes.Replace(plain, []byte("body"), []byte("\xff\xff\xff\xff"), 1)[:600],
		"headers without an end":       bytes.Repeat(plain[:len(plain)-1024], 50),
		"two hundred directories deep": deep(200),
		"many links":                   tarOf(t, manyLinks(500)...),
		"gzip in gzip":                 gzipped(t, gzipped(t, plain)),
		"gzip with a tail":             append(gzipped(t, plain), []byte("rubbish behind the end")...),
		"nothing at all":               {},
		"one block":                    make([]byte, 512),
		"zeros":                        make([]byte, 100_000),
	}
}

func manyLinks(n int) []entry {
	entries := []entry{file("f", "x")}
	for i := range n {
		entries = append(entries, hard(fmt.Sprint("h", i), "f"))
	}
	return entries
}

// paxHeader is where the header of the file itself begins: the records are before.
func paxHeader(t *testing.T, raw []byte) int {
	t.Helper()
	for at := 0; at+512 <= len(raw); at += 512 {
		if raw[at+156] == tar.TypeReg && raw[at] == 'a' {
			return at
		}
	}
	t.Fatal("no header")
	return 0
}

func checksummed(raw []byte, at int) []byte {
	copy(raw[at+148:], "        ")
	sum := 0
	for _, b := range raw[at : at+512] {
		sum += int(b)
	}
	copy(raw[at+148:], fmt.Sprintf("%06o\x00 ", sum))
	return raw
}

func gzipped(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCraftedTarsChangeNothingOutside(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		root := t.TempDir()
		s := open(t, filepath.Join(root, "data"), driver)
		victim := filepath.Join(root, "victim")
		if err := os.WriteFile(victim, []byte("innocent"), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, raw := range crafted(t) {
			t.Run(name, func(t *testing.T) {
				l, err := s.Register(t.Context(), RegisterRequest{Owner: "work/crafted"}, bytes.NewReader(raw))
				t.Logf("%v", err)
				if err == nil {
					// What was taken can be given back, and seen.
					var again bytes.Buffer
					if err := s.WriteTar(t.Context(), l.Chain, &again); err != nil {
						t.Log(err)
					}
				}
				if read(t, victim) != "innocent" {
					t.Error("the victim was changed")
				}
			})
		}
		if err := s.Release(t.Context(), "work/crafted"); err != nil {
			t.Error(err)
		}
		onlyLayers(t, s, 0)
	})
}

// A tar of some kilobytes that unpacks to terabytes fills a disk that is full
// soon, and leaves nothing there.
func TestABombIsRefusedByAFullDisk(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("bomb", root, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, filepath.Join(root, "data"), "vfs")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		defer writer.Close()
		packed := gzip.NewWriter(writer)
		w := tar.NewWriter(packed)
		if w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Size: 1 << 40, Mode: 0o600}) != nil {
			return
		}
		for block := bytes.Repeat([]byte("bomb"), 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				return // the reader has had enough
			}
		}
	}()
	_, err = s.Register(t.Context(), RegisterRequest{Owner: "work/bomb"}, reader)
	_ = reader.Close()
	<-fed
	if err == nil {
		t.Error("it was unpacked")
	}
	onlyLayers(t, s, 0)
}

// A tar can be made of names that nothing is made of: they are remembered all
// the same, and a megabyte of them packs to a kilobyte.
func TestNamesAreBounded(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	long := tarOf(t, file(whiteoutMeta+strings.Repeat("x", 1<<19), ""))
	if _, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x"}, bytes.NewReader(long)); errdefs.KindOf(err) != errdefs.InvalidArgument || len(err.Error()) > 1000 {
		t.Errorf("a name of half a megabyte: %.1000v", err)
	}
	onlyLayers(t, s, 0)

	root := t.TempDir()
	u, split := unpacking(t, root, whiteoutNodes)
	u.named = maxNames - 10*perName // as after millions of others
	many := slices.Repeat([]entry{dir("d/", 0o755)}, 10)
	if _, err := u.all(bytes.NewReader(tarOf(t, many...)), split); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("too many names: %v", err)
	}
}

func TestUnpackingEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir(), "overlay")
	ctx, cancel := context.WithCancel(t.Context())
	header := tarOf(t, entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "endless", Size: 0, Mode: 0o600}})
	endless := readerFunc(func(p []byte) (int, error) {
		cancel()
		clear(p)
		return copy(p, header), nil
	})
	if _, err := s.Register(ctx, RegisterRequest{Owner: "work/x"}, endless); err == nil {
		t.Error("no error")
	}
	onlyLayers(t, s, 0)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The times of a directory that a tar names twice are the last ones; a root that
// it does not name keeps those of the root below.
func TestTheLastTimesOfADirectoryCount(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		at := func(name string, seconds int64) entry {
			return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: time.Unix(seconds, 0)}}
		}
		below := s.mustRegister(t, "", at("./", 1000), at("d/", 2000), file("d/x", "x"))
		top := s.mustRegister(t, below.Chain, file("d/.wh.x", ""), at("d/", 3000), file("y", "y"), at("d/", 4000))
		root := s.mustMount(t, "one", top.Chain)
		wanted := map[string]int64{"d": 4000}
		if driver == "overlay" { // a copy's root is the one that was filled
			wanted[""] = 1000
		}
		for name, want := range wanted {
			path := filepath.Join(s.root, top.dir, "diff", name)
			if found, err := os.Stat(path); err != nil || found.ModTime().Unix() != want {
				t.Errorf("%s: %v (%v), want %d; mounted at %s", path, found.ModTime().Unix(), err, want, root)
			}
		}
	})
}

// unpacking returns an unpacker into root, and where it notes how the tar was.
func unpacking(t *testing.T, root string, style whiteoutStyle) (*unpacker, *splitWriter) {
	t.Helper()
	u, err := newUnpacker(t.Context(), root, style)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	split, err := createSplit(filepath.Join(t.TempDir(), splitName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { split.close() })
	return u, split
}
