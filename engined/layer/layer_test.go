package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/engined/store"
	"github.com/engined/engined/proto/errdefs"
)

// entry is one entry of a tar that a test writes.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}

func link(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

func hard(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// oldTime is what entries without a time get; directories must keep it, too.
var oldTime = time.Unix(1_000_000_000, 123_000_000)

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if e.ModTime.IsZero() {
			e.ModTime = oldTime
		}
		e.Format = tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("unpacking layers and mounting needs root")
	}
}

// open opens a store of the driver under root.
func open(t testing.TB, root, driver string) *Store {
	t.Helper()
	needRoot(t)
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(root, "engined.db"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), db, root, Options{Driver: driver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountAll(t, root)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func unmountAll(t testing.TB, root string) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

func (s *Store) mustRegister(t testing.TB, parent digest.Digest, entries ...entry) Layer {
	t.Helper()
	l, err := s.Register(t.Context(), RegisterRequest{Parent: parent, Owner: "image/test"}, bytes.NewReader(tarOf(t, entries...)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// mustMount makes a writable layer and returns its root.
func (s *Store) mustMount(t testing.TB, id string, parent digest.Digest) string {
	t.Helper()
	if err := s.Create(t.Context(), id, parent, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	root, err := s.Mount(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	return root
}

// tree describes everything below root, one line per file.
func tree(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	err := filepath.Walk(root, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		content := ""
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(raw))[:8]
		case unix.S_IFLNK:
			content, _ = os.Readlink(path)
		case unix.S_IFCHR, unix.S_IFBLK:
			content = fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
		}
		rel, _ := filepath.Rel(root, path)
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %s", rel, stat.Mode, stat.Uid, stat.Gid, content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func read(t testing.TB, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

func eachDriver(t *testing.T, do func(t *testing.T, driver string)) {
	for _, driver := range []string{"overlay2", "vfs"} {
		t.Run(driver, func(t *testing.T) { do(t, driver) })
	}
}

func TestLayersJoinWithDeletionsApplied(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		base := s.mustRegister(t, "", dir("etc/", 0o755), file("etc/passwd", "root"), file("etc/gone", "x"),
			dir("var/", 0o750), dir("var/cache/", 0o700), file("var/cache/old", "x"), dir("tmp/", 0o1777), file("usr/bin/tool", "v1"),
			dir("remade/", 0o755), file("remade/below", "x"), link("bin", "usr/bin"))
		top := s.mustRegister(t, base.Chain, file("etc/.wh.gone", ""), file("var/cache/.wh..wh..opq", ""), file("var/cache/new", "y"),
			file("tmp/implied", "z"), file("usr/bin/tool", "v2"), file(".wh.remade", ""), dir("remade/", 0o711), file("remade/fresh", "f"))
		root := s.mustMount(t, "c1", top.Chain)

		for path, want := range map[string]string{"etc/passwd": "root", "var/cache/new": "y", "tmp/implied": "z", "bin/tool": "v2", "remade/fresh": "f"} {
			if got := read(t, filepath.Join(root, path)); got != want {
				t.Errorf("%s is %q, want %q", path, got, want)
			}
		}
		for _, path := range []string{"etc/gone", "var/cache/old", "remade/below", "etc/.wh.gone", "var/cache/.wh..wh..opq"} {
			if exists(filepath.Join(root, path)) {
				t.Errorf("%s is there", path)
			}
		}
		// The upper layer names neither /tmp nor /var: they look as before.
		for path, want := range map[string]uint32{"tmp": 0o1777, "var": 0o750, "remade": 0o711} {
			var stat unix.Stat_t
			if err := unix.Stat(filepath.Join(root, path), &stat); err != nil || stat.Mode&0o7777 != want {
				t.Errorf("%s has mode %o (%v), want %o", path, stat.Mode&0o7777, err, want)
			}
		}
		if err := os.WriteFile(filepath.Join(root, "mine"), []byte("1234"), 0o600); err != nil {
			t.Fatal(err)
		}
		if size, err := s.Size(t.Context(), "c1"); err != nil || size != 4 {
			t.Errorf("size %d, %v; want 4", size, err)
		}
	})
}

func TestAttributesSurviveUnpacking(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // v2, net_raw
		suid := entry{tar.Header{Typeflag: tar.TypeReg, Name: "bin/su", Mode: 0o4755, Uid: 7, Gid: 8, Size: 2,
			ModTime: oldTime, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": capability,
				"SCHILY.xattr.user.note": "hello", "SCHILY.xattr.trusted.overlay.redirect": "/etc"}}, "su"}
		l := s.mustRegister(t, "", dir("./", 0o711), dir("bin/", 0o755), suid, hard("bin/su2", "bin/su"), link("bin/l", "su"),
			entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o622}},
			entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
			entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "loop", Mode: 0o660, Uid: 1000000, Gid: 6, Devmajor: 7, Devminor: 300}})
		root := s.mustMount(t, "c1", l.Chain)

		want := strings.Join([]string{
			". 40711 0:0 ", "bin 40755 0:0 ", "bin/l 120777 0:0 su",
			"bin/su 104755 7:8 " + fmt.Sprintf("%x", sha256.Sum256([]byte("su")))[:8],
			"bin/su2 104755 7:8 " + fmt.Sprintf("%x", sha256.Sum256([]byte("su")))[:8],
			"fifo 10622 0:0 ", "loop 60660 1000000:6 7:300", "null 20666 0:0 1:3"}, "\n")
		if got := tree(t, root); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		for _, path := range []string{"bin", "bin/su", "bin/l", "null"} {
			info, err := os.Lstat(filepath.Join(root, path))
			if err != nil || !info.ModTime().Equal(oldTime) {
				t.Errorf("%s: time %v, %v", path, info.ModTime(), err)
			}
		}
		value := make([]byte, 64)
		if n, err := unix.Lgetxattr(filepath.Join(root, "bin/su"), "security.capability", value); err != nil || string(value[:n]) != capability {
			t.Errorf("capability %x, %v", value[:max(n, 0)], err)
		}
		if n, err := unix.Lgetxattr(filepath.Join(root, "bin/su"), "user.note", value); err != nil || string(value[:n]) != "hello" {
			t.Errorf("user.note %q, %v", value[:max(n, 0)], err)
		}
		if _, err := unix.Lgetxattr(filepath.Join(s.root, l.dir, "diff/bin/su"), "trusted.overlay.redirect", value); err == nil {
			t.Error("a tar set overlayfs' own attribute")
		}
		var a, b unix.Stat_t
		if unix.Lstat(filepath.Join(root, "bin/su"), &a) != nil || unix.Lstat(filepath.Join(root, "bin/su2"), &b) != nil || a.Ino != b.Ino {
			t.Error("the hard link is none")
		}
	})
}

func TestEveryCompressionGivesTheSameLayer(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	plain := tarOf(t, file("a", strings.Repeat("text ", 200_000)))
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	z, _ := zstd.NewWriter(&zst)
	for _, w := range []io.WriteCloser{g, z} {
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want := digest.FromBytes(plain)
	for name, packed := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zst.Bytes()} {
		l, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x"}, bytes.NewReader(packed))
		if err != nil || l.Diff != want || l.Size != 1_000_000 {
			t.Errorf("%s: %+v, %v; want diff %s", name, l, err, want)
		}
	}
	truncated := gz.Bytes()[:gz.Len()-10]
	if _, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x"}, bytes.NewReader(truncated)); err == nil {
		t.Error("a truncated gzip stream was taken")
	}
	if _, err := s.Register(t.Context(), RegisterRequest{Owner: "work/x", Diff: digest.FromString("other")}, bytes.NewReader(gz.Bytes())); errdefs.KindOf(err) != errdefs.InvalidArgument {
		t.Errorf("a wrong diff id: %v", err)
	}
	onlyLayers(t, s, 1)
}

// onlyLayers checks the invariant: as many directories as rows, nothing else.
func onlyLayers(t *testing.T, s *Store, want int) {
	t.Helper()
	s.sweeping.Wait()
	all, err := s.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != want || len(entries) != want+1 { // and the marker
		t.Errorf("%d rows, %d directories (%v), want %d of both", len(all), len(entries), entries, want)
	}
}

func TestTheTarComesBackByteForByte(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		base := s.mustRegister(t, "", file("gone", "x"))
		raw := append(tarOf(t, dir("d/", 0o700), file("d/f", strings.Repeat("0123456789", 100_000)), file("./e", ""), hard("h", "d/f"),
			link("l", "d"), file("l/through", "via the link"), file(".wh.gone", ""), file(strings.Repeat("long/", 60)+"n", "n")), make([]byte, 9000)...)
		l, err := s.Register(t.Context(), RegisterRequest{Parent: base.Chain, Owner: "image/x"}, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var back bytes.Buffer
		if err := s.WriteTar(t.Context(), l.Chain, &back); err != nil || !bytes.Equal(back.Bytes(), raw) {
			t.Fatalf("%d bytes back of %d, %v", back.Len(), len(raw), err)
		}
		if err := os.WriteFile(filepath.Join(s.root, l.dir, "diff/d/f"), []byte("changed"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteTar(t.Context(), l.Chain, io.Discard); err == nil {
			t.Error("a changed file went unnoticed")
		}
		twice := s.mustRegister(t, "", file("a", "1"), file("a", "2"))
		if got := read(t, filepath.Join(s.root, twice.dir, "diff/a")); got != "2" {
			t.Errorf("the last of two entries must win, got %q", got)
		}
		if err := s.WriteTar(t.Context(), twice.Chain, io.Discard); errdefs.KindOf(err) != errdefs.NotImplemented {
			t.Errorf("a file twice: %v", err)
		}
	})
}

func TestOneLayerRegisteredTwiceAtOnceIsStoredOnce(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("diff id known=%v", known), func(t *testing.T) {
			s := open(t, t.TempDir(), "overlay2")
			raw := tarOf(t, file("a", strings.Repeat("x", 1<<20)), file("b", "y"))
			request := RegisterRequest{Owner: "image/x"}
			if known {
				request.Diff = digest.FromBytes(raw)
			}
			var wait sync.WaitGroup
			for range 8 {
				wait.Go(func() {
					if l, err := s.Register(t.Context(), request, bytes.NewReader(raw)); err != nil || l.Diff != digest.FromBytes(raw) {
						t.Errorf("%+v, %v", l, err)
					}
				})
			}
			wait.Wait()
			onlyLayers(t, s, 1)
		})
	}
}

func TestUnneededLayersGoAndNeededOnesStay(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	base := s.mustRegister(t, "", file("a", "1"))
	top, err := s.Register(t.Context(), RegisterRequest{Parent: base.Chain, Owner: "image/top"}, bytes.NewReader(tarOf(t, file("b", "2"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "c1", top.Chain, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, owner := range []string{"image/test", "image/top"} {
		if err := s.Release(t.Context(), owner); err != nil {
			t.Fatal(err)
		}
	}
	if all, _ := s.All(t.Context()); len(all) != 2 {
		t.Fatalf("%d layers left under a container", len(all))
	}
	if err := s.Remove(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	onlyLayers(t, s, 0)
}

func TestWritableLayerVerbsAreIdempotent(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		root := t.TempDir()
		s := open(t, root, driver)
		base := s.mustRegister(t, "", file("a", "1"))
		other := s.mustRegister(t, "", file("b", "1"))
		for range 2 {
			s.mustMount(t, "c1", base.Chain)
		}
		if err := s.Create(t.Context(), "c1", other.Chain, CreateOptions{}); errdefs.KindOf(err) != errdefs.AlreadyExists {
			t.Errorf("again on another parent: %v", err)
		}
		if err := os.WriteFile(filepath.Join(mounted(t, s, "c1"), "kept"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		// A new process finds the mount.
		again, err := Open(t.Context(), s.db, root, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if again.Name() != driver || !exists(filepath.Join(mounted(t, again, "c1"), "kept")) {
			t.Error("a second store does not see the first one's mount")
		}
		for range 2 {
			if err := s.Unmount(t.Context(), "c1"); err != nil {
				t.Error(err)
			}
		}
		if !exists(filepath.Join(mounted(t, s, "c1"), "kept")) {
			t.Error("a change is lost over unmount and mount")
		}
		for range 2 {
			if err := s.Remove(t.Context(), "c1"); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Mount(t.Context(), "c1"); errdefs.KindOf(err) != errdefs.NotFound {
			t.Errorf("mounting what was removed: %v", err)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	})
}

func mounted(t *testing.T, s *Store, id string) string {
	t.Helper()
	root, err := s.Mount(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestAnEmptyRootAndABusyOne(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	root := s.mustMount(t, "c1", "")
	if got := tree(t, root); got != ". 40755 0:0 " {
		t.Errorf("an empty root holds %s", got)
	}
	busy, err := os.Create(filepath.Join(root, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := s.Unmount(t.Context(), "c1"); err != nil {
		t.Errorf("unmounting a busy root: %v", err)
	}
	if is, _ := mountinfo.Mounted(root); is {
		t.Error("it is still mounted")
	}
}

func TestManyLayersJoin(t *testing.T) {
	s := open(t, t.TempDir(), "overlay2")
	var parent digest.Digest
	const count = 150
	for i := range count {
		parent = s.mustRegister(t, parent, file(fmt.Sprintf("f%d", i), "x")).Chain
	}
	root := s.mustMount(t, "c1", parent)
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != count {
		t.Errorf("%d files, %v; want %d", len(entries), err, count)
	}
	// The way of kernels before 6.8 gives the same.
	_, lowers, err := s.writable(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if err := mountByString(filepath.Join(s.root, "c1"), lowers, mountOptions); err != nil {
		t.Fatal(err)
	}
	if entries, err = os.ReadDir(root); err != nil || len(entries) != count {
		t.Errorf("by one string: %d files, %v; want %d", len(entries), err, count)
	}
}

func TestOpenSweepsAndMarks(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "overlay2")
	raw := tarOf(t, file("a", "1"))
	l, err := s.Register(t.Context(), RegisterRequest{Owner: "image/x"}, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Register(t.Context(), RegisterRequest{Owner: "work/died"}, bytes.NewReader(tarOf(t, file("b", "1")))); err != nil {
		t.Fatal(err)
	}
	for _, rubbish := range []string{"tmp-0123456789abcdef", "fedcba9876543210"} {
		if err := os.MkdirAll(filepath.Join(s.root, rubbish, "diff"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.root, l.dir)); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), s.db, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	entries, _ := os.ReadDir(s.root)
	if len(entries) != 1 || entries[0].Name() != marker {
		t.Errorf("left: %v", entries)
	}
	if got, err := again.Get(t.Context(), l.Chain); err != nil || got.Damaged == "" {
		t.Errorf("a layer without directory: %+v, %v", got, err)
	}
	if err := again.Create(t.Context(), "c1", l.Chain, CreateOptions{}); errdefs.KindOf(err) != errdefs.DataLoss {
		t.Errorf("a container on a damaged layer: %v", err)
	}
	if _, err := again.Register(t.Context(), RegisterRequest{Owner: "image/x", Diff: l.Diff}, bytes.NewReader(raw)); err != nil {
		t.Errorf("registering it again: %v", err)
	}
	if got, err := again.Get(t.Context(), l.Chain); err != nil || got.Damaged != "" {
		t.Errorf("after registering it again: %+v, %v", got, err)
	}
	onlyLayers(t, again, 1)
}

func TestAForeignDirectoryIsLeftAlone(t *testing.T) {
	root := t.TempDir()
	s := open(t, root, "overlay2")
	if err := os.Remove(filepath.Join(s.root, marker)); err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(s.root, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), s.db, root, Options{}); errdefs.KindOf(err) != errdefs.FailedPrecondition || !exists(theirs) {
		t.Errorf("got %v; theirs is there: %v", err, exists(theirs))
	}
}
