package debian

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gname "github.com/google/go-containerregistry/pkg/name"
	greg "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/integration/harness"
)

// A Debian image, pushed by skopeo, is pulled: its files are those that umoci
// unpacks, in every respect. It is pushed to another registry: manifest and
// layers have the digests that they came with.
func TestARoundTripChangesNothing(t *testing.T) {
	for _, tool := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian package %s)", tool, tool)
		}
	}
	cli := harness.AnyCLI(t)
	from, to := harness.NewRegistry(t), harness.NewRegistry(t)
	dir := harness.TempDir(t)
	write(t, filepath.Join(dir, "layout"), rootFileSystem(t))
	name := from.Host + "/debian:" + suite
	run(t, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+filepath.Join(dir, "layout")+":it", "docker://"+name)
	run(t, "umoci", "unpack", "--image", filepath.Join(dir, "layout")+":it", filepath.Join(dir, "bundle"))
	want := describe(t, filepath.Join(dir, "bundle", "rootfs"))

	stack := harness.New(t, harness.Options{NoImage: true, Engined: []string{"--storage-driver", "overlay2"}})
	cli = cli.At(t, stack.Host())
	cli.Must(t, "pull", name)
	below := cli.Must(t, "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}", name)
	joined := filepath.Join(dir, "joined")
	if err := os.Mkdir(joined, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("overlay", joined, "overlay", unix.MS_RDONLY, "lowerdir="+strings.TrimSpace(below)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(joined, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	compareTrees(t, describe(t, joined), want)

	other := to.Host + "/elsewhere/debian:" + suite
	cli.Must(t, "tag", name, other)
	cli.Must(t, "push", other)
	if got, want := manifest(t, other), manifest(t, name); got != want {
		t.Errorf("pushed as\n%s\nwas\n%s", got, want)
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// manifest is what a registry has, after reading every blob.
func manifest(t *testing.T, name string) string {
	t.Helper()
	ref, err := gname.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	image, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		content, err := l.Compressed() // verifies the digest
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			t.Error(err)
		}
		_ = content.Close()
	}
	return string(raw)
}

// write makes an OCI layout of the tree and of a layer that changes it in all the
// ways there are.
func write(t *testing.T, dir, root string) {
	t.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, open := range []tarball.Opener{
		func() (io.ReadCloser, error) { return part(root) },
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(changes(t))), nil },
	} {
		l, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
		if err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, l); err != nil {
			t.Fatal(err)
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Cmd = "linux", "amd64", []string{"bash"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	made, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := made.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "it"}),
		layout.WithPlatform(greg.Platform{OS: "linux", Architecture: "amd64"})); err != nil {
		t.Fatal(err)
	}
}

// part opens the tree, without most of its files unless all are wanted.
func part(root string) (io.ReadCloser, error) {
	file, err := os.Open(root)
	if err != nil || os.Getenv("ENGINED_WHOLE_DEBIAN") != "" {
		return file, err
	}
	reader, writer := io.Pipe()
	go func() {
		defer file.Close()
		writer.CloseWithError(filter(file, writer))
	}()
	return reader, nil
}

// filter leaves out the libraries and what is for people to read.
func filter(from io.Reader, to io.Writer) error {
	reader, writer := tar.NewReader(from), tar.NewWriter(to)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return writer.Close()
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeDir && (strings.HasPrefix(header.Name, "./usr/lib/") || strings.HasPrefix(header.Name, "./usr/share/") || strings.HasPrefix(header.Name, "./var/cache/")) {
			continue
		}
		if err := writer.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(writer, reader); err != nil {
			return err
		}
	}
}

func changes(t *testing.T) []byte {
	at := time.Unix(1_600_000_000, 123_456_789)
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "opt/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "opt/" + strings.Repeat("long", 40) + "/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "opt/new/", Mode: 0o2751, Uid: 12, Gid: 34},
		{Typeflag: tar.TypeReg, Name: "opt/new/file", Mode: 0o4711, Uid: 70_000, Gid: 3_000_000, Size: 7,
			PAXRecords: map[string]string{"SCHILY.xattr.user.note": "a\x00b", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		{Typeflag: tar.TypeLink, Name: "opt/hard", Linkname: "opt/new/file"},
		{Typeflag: tar.TypeSymlink, Name: "opt/soft", Linkname: "/no/where", Mode: 0o777, Uid: 5},
		{Typeflag: tar.TypeFifo, Name: "opt/fifo", Mode: 0o620},
		{Typeflag: tar.TypeChar, Name: "opt/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeBlock, Name: "opt/disk", Mode: 0o660, Devmajor: 259, Devminor: 300},
		{Typeflag: tar.TypeReg, Name: "opt/" + strings.Repeat("long", 40) + "/ünïcode ☃", Mode: 0o600},
		{Typeflag: tar.TypeReg, Name: "etc/.wh.passwd"},
		{Typeflag: tar.TypeReg, Name: "usr/share/doc/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "usr/share/doc/only", Mode: 0o644},
		{Typeflag: tar.TypeReg, Name: "home", Mode: 0o644}, // was a directory
		{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o700, Gid: 9},
	} {
		h.ModTime, h.Format = at, tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// describe has a line for every file of a tree: all that a tar can say of it.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	lines, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat unix.Stat_t
		if err := unix.Lstat(path, &stat); err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		line := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", stat.Mode, stat.Uid, stat.Gid, stat.Mtim.Sec, stat.Mtim.Nsec)
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size %d content %x", stat.Size, sha256.Sum256(raw))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" device %d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
		}
		if stat.Mode&unix.S_IFMT != unix.S_IFDIR && stat.Nlink > 1 {
			if first[stat.Ino] == "" {
				first[stat.Ino] = name
			}
			line += fmt.Sprintf(" links %d with %s", stat.Nlink, first[stat.Ino])
		}
		lines[name] = line + attributes(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func attributes(path string) string {
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00")
	slices.Sort(names)
	said := ""
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			continue
		}
		said += fmt.Sprintf(" %s=%q", name, value[:n])
	}
	return said
}

func compareTrees(t *testing.T, got, want map[string]string) {
	t.Helper()
	wrong := 0
	for name, line := range want {
		if got[name] != line {
			if wrong++; wrong <= 20 {
				t.Errorf("%s\nengined: %s\numoci:   %s", name, got[name], line)
			}
		}
	}
	for name := range got {
		if _, there := want[name]; !there {
			if wrong++; wrong <= 20 {
				t.Errorf("%s is not in umoci's tree", name)
			}
		}
	}
	t.Logf("%d files, %d differ", len(want), wrong)
}
