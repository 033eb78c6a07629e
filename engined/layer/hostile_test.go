package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// hostile are layers that try to reach out of their directory, by name. OUT
// stands for the directory that must not change, as an absolute path.
var hostile = map[string][]entry{
	"name with dots":                    {file("../../../OUTNAME/victim", "evil")},
	"name with dots inside":             {file("a/../../../OUTNAME/victim", "evil")},
	"absolute name":                     {file("OUT/victim", "evil")},
	"directory name with dots":          {dir("../../OUTNAME/made/", 0o777)},
	"root as a file":                    {file(".", "evil")},
	"root as a link":                    {link("./", "OUT"), file("victim", "evil")},
	"absolute link, then through it":    {link("l", "OUT"), file("l/victim", "evil")},
	"relative link, then through it":    {link("l", "../../../../../../../../../../OUT"), file("l/victim", "evil")},
	"link to a link out":                {link("a", "b"), link("b", "OUT"), file("a/victim", "evil")},
	"link to itself":                    {link("a", "a"), file("a/victim", "evil")},
	"link, then a directory through it": {link("l", "OUT"), dir("l/made/", 0o777)},
	"link over a directory":             {dir("d/", 0o755), file("d/x", "1"), link("d", "OUT"), file("d/victim", "evil")},
	"link to the victim, then written":  {link("l", "OUT/victim"), file("l", "evil")},
	"link to the victim, then a chmod":  {link("l", "OUT/victim"), dir("l", 0o777)},
	"hard link to outside":              {hard("h", "../../../OUTNAME/victim"), file("h", "evil")},
	"hard link to an absolute name":     {hard("h", "OUT/victim"), file("h", "evil")},
	"hard link through a link":          {link("l", "OUT"), hard("h", "l/victim"), file("h", "evil")},
	"hard link to a link out":           {link("l", "OUT/victim"), hard("h", "l"), file("h", "evil")},
	"hard link to itself":               {file("h", "1"), hard("h", "h")},
	"whiteout of the parent":            {file(".wh...", ""), file("a/.wh...", "")},
	"whiteout of itself":                {file(".wh..", "")},
	"whiteout of nothing":               {file(".wh.", "")},
	"whiteout through a link":           {link("l", "OUT"), file("l/.wh.victim", "")},
	"opaque through a link":             {link("l", "OUT"), file("l/.wh..wh..opq", "")},
	"opaque with dots":                  {file("../OUTNAME/.wh..wh..opq", "")},
	"device through a link": {link("l", "OUT"),
		{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "l/sda", Mode: 0o666, Devmajor: 8}}},
	"fifo in the way of a file":   {{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "f", Mode: 0o666}}, file("f", "x")},
	"device in the way of a file": {{Header: tar.Header{Typeflag: tar.TypeChar, Name: "f", Mode: 0o666, Devmajor: 1, Devminor: 3}}, file("f", "x")},
	"magic link":                  {link("p", "/proc/self/root"), file("p/OUT/victim", "evil")},
	"file as a directory":         {file("f", "x"), file("f/victim", "evil")},
	"unknown type":                {{Header: tar.Header{Typeflag: 'Z', Name: "z"}}},
	"redirect by attribute": {{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755,
		PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "OUT"}}}},
}

func TestHostileLayersChangeNothingOutside(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		root := t.TempDir()
		s := open(t, filepath.Join(root, "data"), driver)
		outside := filepath.Join(root, "outside")
		if err := os.MkdirAll(outside, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("innocent"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := tree(t, outside)
		base := s.mustRegister(t, "", dir("OUTNAME/", 0o755), file("x", "1"))
		for name, entries := range hostile {
			t.Run(name, func(t *testing.T) {
				raw := tarOf(t, placed(entries, outside)...)
				// Refused or contained, both are right; reaching out is not.
				_, err := s.Register(t.Context(), RegisterRequest{Parent: base.Chain, Owner: "work/hostile"}, bytes.NewReader(raw))
				t.Logf("%v", err)
				if after := tree(t, outside); after != before {
					t.Errorf("outside became\n%s\nwas\n%s", after, before)
				}
			})
		}
		if err := s.Release(t.Context(), "work/hostile"); err != nil {
			t.Error(err)
		}
		onlyLayers(t, s, 1)
	})
}

// placed fills the outside directory into entries.
func placed(entries []entry, outside string) []entry {
	fill := strings.NewReplacer("OUTNAME", filepath.Base(outside), "OUT", outside)
	var filled []entry
	for _, e := range entries {
		e.Name, e.Linkname = fill.Replace(e.Name), fill.Replace(e.Linkname)
		filled = append(filled, e)
	}
	return filled
}

func TestLinksInsideALayerLeadInside(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	l := s.mustRegister(t, "", dir("usr/", 0o755), dir("usr/lib/", 0o755), link("lib", "/usr/lib"), file("lib/so", "x"),
		link("up", "../../usr"), file("up/y", "y"))
	for path, want := range map[string]string{"usr/lib/so": "x", "usr/y": "y"} {
		if got := read(t, filepath.Join(s.root, l.dir, "diff", path)); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestBrokenTarsAreRefusedAndLeaveNothing(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	whole := tarOf(t, file("a", strings.Repeat("x", 100_000)))
	huge := bytes.Clone(whole)
	copy(huge[124:], []byte{0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // its size, in base 256
	for name, raw := range map[string][]byte{
		"cut in a file":   whole[:50_000],
		"cut in a header": whole[:300],
		"no tar":          bytes.Repeat([]byte("no tar at all "), 1000),
		"huge size":       huge,
		"gzip of rubbish": append([]byte{0x1f, 0x8b, 0x08}, bytes.Repeat([]byte{0xff}, 100)...),
		"zstd of rubbish": append([]byte{0x28, 0xb5, 0x2f, 0xfd}, bytes.Repeat([]byte{0xff}, 100)...),
	} {
		if l, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x"}, bytes.NewReader(raw)); err == nil {
			t.Errorf("%s was taken: %+v", name, l)
		} else if errdefs.KindOf(err) != errdefs.InvalidArgument && name != "gzip of rubbish" && name != "zstd of rubbish" {
			t.Errorf("%s: kind %q: %v", name, errdefs.KindOf(err), err)
		}
	}
	onlyLayers(t, s, 0)
}

func TestAReaderThatFailsIsTheError(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	whole := tarOf(t, file("a", strings.Repeat("x", 1<<20)))
	stream := io.MultiReader(bytes.NewReader(whole[:1<<19]), failing{})
	if _, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x"}, stream); err == nil || !strings.Contains(err.Error(), "the client went away") {
		t.Errorf("got %v", err)
	}
	onlyLayers(t, s, 0)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, unixError("the client went away") }

type unixError string

func (e unixError) Error() string { return string(e) }

// FuzzUnpack feeds any bytes to the unpacker of both styles and looks whether
// something outside changed.
func FuzzUnpack(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("unpacking needs root")
	}
	for _, entries := range hostile {
		f.Add(tarOf(f, placed(entries, "/outside")...))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "victim"), []byte("innocent"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, style := range []whiteoutStyle{whiteoutNodes, whiteoutDeletes} {
			layer := filepath.Join(root, "layer")
			if err := os.MkdirAll(filepath.Join(layer, "diff"), 0o700); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // sparse files can be endless
			_, _ = unpack(ctx, layer, style, bytes.NewReader(raw))
			cancel()
			if err := os.RemoveAll(layer); err != nil {
				t.Fatal(err)
			}
		}
		if got := tree(t, root); strings.Count(got, "\n") != 1 || !strings.Contains(got, "victim 100600") {
			t.Errorf("outside became\n%s", got)
		}
	})
}

func TestSparseFilesTakeNoSpace(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	const size = 64 << 20
	body := "start" + strings.Repeat("\x00", size-8) + "end"
	l := s.mustRegister(t, "", file("mixed", body), file("zeros", strings.Repeat("\x00", size)))
	for name, want := range map[string]string{"mixed": body, "zeros": strings.Repeat("\x00", size)} {
		path := filepath.Join(s.root, l.dir, "diff", name)
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil || stat.Blocks*512 > 2<<20 {
			t.Errorf("%s takes %d bytes, %v", name, stat.Blocks*512, err)
		}
		if read(t, path) != want {
			t.Errorf("%s changed", name)
		}
	}
	if l.Size != 2*size {
		t.Errorf("size %d", l.Size)
	}
}

func TestResolvingWithoutOpenat2StaysInside(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	inside := filepath.Join(root, "inside")
	for _, path := range []string{filepath.Join(inside, "d"), filepath.Join(root, "outside")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"abs": "/d", "up": "../../../d", "out": root + "/outside"} {
		if err := os.Symlink(target, filepath.Join(inside, name)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(inside, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, resolve := range []func(int, string, int) (int, error){inRoot, inRootSlowly} {
		for name, want := range map[string]bool{"d": true, "abs": true, "up": true, "out": false, "none": false} {
			got, err := resolve(fd, name, unix.O_PATH|unix.O_DIRECTORY)
			if (err == nil) != want {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				_ = unix.Close(got)
			}
		}
	}
}
