package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// base is the image that the tests' containers change.
func baseEntries() []entry {
	return []entry{dir("etc/", 0o755), file("etc/passwd", "root"), dir("bin/", 0o755), file("bin/sh", "sh"), link("bin/ash", "sh"),
		dir("var/", 0o755), file("var/gone", "x"), dir("var/again/", 0o700), file("var/again/old", "x"), file("kind", "a file"), dir("turned/", 0o755), file("turned/x", "x")}
}

// change does to a root what containers do.
func change(t testing.TB, root string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	must(os.WriteFile(at("etc/new"), []byte("new"), 0o640))
	must(os.Chown(at("etc/new"), 7, 8))
	must(os.Link(at("etc/new"), at("hard")))
	must(os.Remove(at("var/gone")))
	must(os.RemoveAll(at("var/again")))
	must(os.Mkdir(at("var/again"), 0o711))
	must(os.WriteFile(at("var/again/new"), nil, 0o600))
	must(os.Remove(at("kind")))
	must(os.Mkdir(at("kind"), 0o755))
	must(os.RemoveAll(at("turned")))
	must(os.Symlink("/nowhere", at("turned")))
	must(unix.Mkfifo(at("fifo"), 0o600))
	must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Setxattr(at("bin/sh"), "trusted.note", []byte{0, 1}, 0))
	must(os.Chmod(at("bin/sh"), 0o4755))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(socket)
	must(unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	for _, name := range []string{"etc/hosts", "etc/resolv.conf", "etc/hostname"} { // as a runtime does
		must(os.WriteFile(at(name), nil, 0o755))
	}
	must(os.MkdirAll(at("dev/pts"), 0o755))
	must(os.WriteFile(at("dev/console"), nil, 0o755))
	must(os.Mkdir(at("proc"), 0o755))
	must(os.Mkdir(at("data"), 0o755))
}

func namesOf(t testing.TB, raw []byte) []string {
	t.Helper()
	var names []string
	for reader := tar.NewReader(bytes.NewReader(raw)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}

func TestTheChangesOfAContainerMakeALayer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		base := s.mustRegister(t, "", baseEntries()...)
		root := s.mustMount(t, "one", base.Chain)
		change(t, root)
		var raw bytes.Buffer
		if err := s.WriteDiff(t.Context(), "one", &raw); err != nil {
			t.Fatal(err)
		}
		names := namesOf(t, raw.Bytes())
		for _, placeholder := range []string{"proc/", "dev/", "dev/console", "etc/hosts", "etc/hostname", "bin/ash", "etc/passwd", "socket"} {
			if slices.Contains(names, placeholder) {
				t.Errorf("%s is among the changes %v", placeholder, names)
			}
		}
		l, err := s.Register(t.Context(), RegisterRequest{Parent: base.Chain, Owner: "image/two"}, bytes.NewReader(raw.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if err := s.WriteTar(t.Context(), l.Chain, &again); err != nil || !bytes.Equal(again.Bytes(), raw.Bytes()) {
			t.Errorf("the layer's tar does not come back: %v", err)
		}
		// What is not a change is made the same by hand.
		copied := s.mustMount(t, "two", l.Chain)
		for _, name := range []string{"etc/hosts", "etc/resolv.conf", "etc/hostname", "dev/pts", "dev/console", "dev", "proc", "socket"} {
			if err := os.Remove(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		settle(t, root)
		settle(t, copied)
		if want, got := tree(t, root), tree(t, copied); got != want {
			t.Errorf("the image shows\n%s\nthe container\n%s", got, want)
		}
		if value, err := getxattr(filepath.Join(copied, "bin/sh"), "trusted.note"); err != nil || value != "\x00\x01" {
			t.Errorf("attribute %q, %v", value, err)
		}
	})
}

func getxattr(path, name string) (string, error) {
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(path, name, value)
	return string(value[:max(n, 0)]), err
}

// settle gives every directory one time: unlike files', theirs are no changes.
func settle(t testing.TB, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{}, {}}, 0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoChangesAreAnEmptyTar(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		base := s.mustRegister(t, "", baseEntries()...)
		root := s.mustMount(t, "one", base.Chain)
		for _, name := range []string{"etc/hosts", "etc/hostname"} {
			if err := os.WriteFile(filepath.Join(root, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var raw bytes.Buffer
		if err := s.WriteDiff(t.Context(), "one", &raw); err != nil || !bytes.Equal(raw.Bytes(), make([]byte, 1024)) {
			t.Errorf("%v, %v", namesOf(t, raw.Bytes()), err)
		}
		// The directory of a placeholder is a change itself when it is one.
		if err := os.Chmod(filepath.Join(root, "etc"), 0o700); err != nil {
			t.Fatal(err)
		}
		raw.Reset()
		if err := s.WriteDiff(t.Context(), "one", &raw); err != nil || !slices.Equal(namesOf(t, raw.Bytes()), []string{"etc/"}) {
			t.Errorf("%v, %v", namesOf(t, raw.Bytes()), err)
		}
	})
}

func TestATreeIsArchivedMountedOrNot(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		s := open(t, t.TempDir(), driver)
		base := s.mustRegister(t, "", baseEntries()...)
		root := s.mustMount(t, "one", base.Chain)
		change(t, root)
		var mounted, unmounted bytes.Buffer
		if err := s.WriteTree(t.Context(), "one", &mounted); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(filepath.Join(root, "hard")); err != nil {
			t.Errorf("the container's mount went with the archive: %v", err)
		}
		if err := s.Unmount(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteTree(t.Context(), "one", &unmounted); err != nil {
			t.Fatal(err)
		}
		if has, err := hasMounts(s.dirOf("one")); has || err != nil {
			t.Errorf("something stays mounted (%v)", err)
		}
		if !bytes.Equal(mounted.Bytes(), unmounted.Bytes()) {
			t.Errorf("mounted %v, unmounted %v", namesOf(t, mounted.Bytes()), namesOf(t, unmounted.Bytes()))
		}
		l, err := s.Register(t.Context(), RegisterRequest{Owner: "image/flat"}, &unmounted)
		if err != nil {
			t.Fatal(err)
		}
		copied := s.mustMount(t, "two", l.Chain)
		if err := os.Remove(filepath.Join(mustMounted(t, s, "one"), "socket")); err != nil {
			t.Fatal(err)
		}
		settle(t, copied)
		settle(t, mustMounted(t, s, "one"))
		if want, got := tree(t, mustMounted(t, s, "one")), tree(t, copied); got != want {
			t.Errorf("the archive has\n%s\nthe container\n%s", got, want)
		}
	})
}

func mustMounted(t testing.TB, s *Store, id string) string {
	t.Helper()
	root, err := s.Mount(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// A container that runs replaces everything it can while it is read: directories
// by links to outside, files by fifos, and cuts and removes. The archive stays a
// whole tar, and holds nothing of outside.
func TestAChangingTreeIsArchivedSafely(t *testing.T) {
	s := open(t, t.TempDir(), "overlay")
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("the host's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := s.mustRegister(t, "", baseEntries()...)
	root := s.mustMount(t, "one", base.Chain)
	stop := make(chan struct{})
	var restless sync.WaitGroup
	for i := range 2 {
		restless.Go(func() { disturb(filepath.Join(root, fmt.Sprint("d", i)), outside, stop) })
	}
	for range 40 {
		for _, write := range []func() (*bytes.Buffer, error){
			func() (*bytes.Buffer, error) {
				var raw bytes.Buffer
				return &raw, s.WriteTree(t.Context(), "one", &raw)
			},
			func() (*bytes.Buffer, error) {
				var raw bytes.Buffer
				return &raw, s.WriteDiff(t.Context(), "one", &raw)
			},
		} {
			raw, err := write()
			if err != nil {
				t.Error(err)
				continue
			}
			namesOf(t, raw.Bytes())
			if bytes.Contains(raw.Bytes(), []byte("the host's own")) {
				t.Error("the archive holds a file of the host's")
			}
		}
	}
	close(stop)
	restless.Wait()
}

func disturb(dir, outside string, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		// Each may fail: the next round finds it so.
		_ = os.MkdirAll(filepath.Join(dir, "in"), 0o755)
		_ = os.WriteFile(filepath.Join(dir, "in/secret"), bytes.Repeat([]byte("x"), 50_000), 0o644)
		_ = os.Truncate(filepath.Join(dir, "in/secret"), 10)
		_ = os.Remove(filepath.Join(dir, "in/secret"))
		_ = unix.Mkfifo(filepath.Join(dir, "in/secret"), 0o600)
		_ = os.RemoveAll(filepath.Join(dir, "in"))
		_ = os.Symlink(outside, filepath.Join(dir, "in"))
		_ = os.RemoveAll(dir)
		_ = os.Symlink(outside, dir)
		_ = os.Remove(dir)
	}
}

func TestArchivesOfWhatIsNotThere(t *testing.T) {
	s := open(t, t.TempDir(), "overlay")
	for _, write := range []error{s.WriteTree(t.Context(), "none", io.Discard), s.WriteDiff(t.Context(), "none", io.Discard)} {
		if errdefs.KindOf(write) != errdefs.NotFound {
			t.Error(write)
		}
	}
	base := s.mustRegister(t, "", baseEntries()...)
	s.mustMount(t, "one", base.Chain)
	// One that is removed while it is read must not look like an emptier one.
	removing := writerFunc(func(p []byte) (int, error) { return len(p), s.Remove(t.Context(), "one") })
	if err := s.WriteTree(t.Context(), "one", removing); err == nil {
		t.Error("a container that went while it was archived: no error")
	}
	if err := s.WriteTree(t.Context(), "one", failingWriter{}); err == nil {
		t.Error("a writer that fails: no error")
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

func TestPaddingKeepsThePromisedSize(t *testing.T) {
	for _, body := range []string{"", "short", strings.Repeat("long ", 100)} {
		got, err := io.ReadAll(padded(strings.NewReader(body), 10))
		if err != nil || len(got) != 10 || !strings.HasPrefix(body+strings.Repeat("\x00", 10), string(got)) {
			t.Errorf("%q became %q, %v", body, got, err)
		}
	}
}

func TestALinkThatBecameAFileIsGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "was-a-link"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n := &node{dir: fd, base: "was-a-link"}
	if target, err := n.readlink(); !gone(err) {
		t.Errorf("a link to %q, %v", target, err)
	}
}

// setcap and setfacl change neither size nor modification time.
func TestAttributesAloneAreAChange(t *testing.T) {
	// cap_net_raw=ep, in the kernel's struct vfs_cap_data of revision 2.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	eachPlace(t, func(t *testing.T, p place, root string) {
		s := openWith(t, filepath.Join(root, "data"), Options{Driver: p.driver, DriverOptions: p.options})
		marked := file("marked", "x")
		marked.PAXRecords = map[string]string{xattrPrefix + "trusted.note": "1"}
		same := file("same", "x")
		same.PAXRecords = marked.PAXRecords
		image := s.mustRegister(t, "", file("ping", "x"), dir("shared/", 0o755), marked, same)
		at := s.mustMount(t, "one", image.Chain)
		for _, err := range []error{unix.Setxattr(filepath.Join(at, "ping"), "security.capability", capability, 0),
			unix.Setxattr(filepath.Join(at, "shared"), "trusted.note", []byte("2"), 0), unix.Removexattr(filepath.Join(at, "marked"), "trusted.note")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		var raw bytes.Buffer
		if err := s.WriteDiff(t.Context(), "one", &raw); err != nil {
			t.Fatal(err)
		}
		if got := namesOf(t, raw.Bytes()); !slices.Equal(got, []string{"marked", "ping", "shared/"}) {
			t.Errorf("changed: %v", got)
		}
		made, err := s.Register(t.Context(), RegisterRequest{Parent: image.Chain, Owner: "image/made"}, &raw)
		if err != nil {
			t.Fatal(err)
		}
		again := s.mustMount(t, "two", made.Chain)
		value := make([]byte, 64)
		if n, err := unix.Getxattr(filepath.Join(again, "ping"), "security.capability", value); err != nil || !bytes.Equal(value[:n], capability) {
			t.Errorf("the capability is %v, %v", value[:max(n, 0)], err)
		}
	})
}
