// Package rootfs makes the smallest useful root file system out of Debian's
// busybox-static: as a tar stream for an image, or as a directory for a bundle.
package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Busybox is where busybox-static installs it.
const Busybox = "/bin/busybox"

// Image settings that go with the tar, as Dockerfile lines for an import.
var Changes = []string{
	"ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	`CMD ["sh"]`,
}

var directories = []struct {
	name string
	mode int64
}{
	{"bin", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"proc", 0o755}, {"root", 0o700},
	{"sys", 0o755}, {"tmp", 0o1777}, {"usr", 0o755}, {"usr/bin", 0o755}, {"var", 0o755}, {"var/tmp", 0o1777},
}

var files = []struct {
	name, content string
	mode          int64
}{
	{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n", 0o644},
	{"etc/group", "root:x:0:\ndaemon:x:1:\nadm:x:4:www-data\nwww-data:x:33:\nnogroup:x:65534:\n", 0o644},
	{"etc/not-executable", "#!/bin/sh\necho this must not run\n", 0o644},
}

// Tar writes the file system as a tar stream, the same bytes each time for the
// same busybox.
func Tar(w io.Writer) error {
	binary, err := os.ReadFile(Busybox)
	if err != nil {
		return fmt.Errorf("reading busybox (Debian package busybox-static): %w", err)
	}
	applets, err := applets()
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	var failed []error
	put := func(header *tar.Header, content []byte) {
		header.ModTime = time.Unix(1_700_000_000, 0)
		header.Size = int64(len(content))
		failed = append(failed, out.WriteHeader(header))
		_, err := out.Write(content)
		failed = append(failed, err)
	}
	for _, dir := range directories {
		put(&tar.Header{Typeflag: tar.TypeDir, Name: dir.name + "/", Mode: dir.mode}, nil)
	}
	put(&tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, binary)
	for _, applet := range applets {
		put(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
	}
	for _, file := range files {
		put(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: file.mode}, []byte(file.content))
	}
	return errors.Join(append(failed, out.Close())...)
}

// applets asks busybox for its commands' names.
func applets() ([]string, error) {
	out, err := exec.Command(Busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", Busybox, err)
	}
	var names []string
	for _, name := range strings.Fields(string(out)) {
		if name != "busybox" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	return names, nil
}

// Unpack makes the file system in dir.
func Unpack(dir string) error {
	var stream bytes.Buffer
	if err := Tar(&stream); err != nil {
		return err
	}
	in := tar.NewReader(&stream)
	for {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackOne(filepath.Join(dir, header.Name), header, in); err != nil {
			return err
		}
	}
}

func unpackOne(path string, header *tar.Header, content io.Reader) error {
	mode := os.FileMode(header.Mode & 0o777)
	switch header.Typeflag {
	case tar.TypeDir:
		if err := os.MkdirAll(path, mode); err != nil {
			return err
		}
		if header.Mode&0o1000 != 0 {
			mode |= os.ModeSticky
		}
		return os.Chmod(path, mode)
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, path)
	}
	// A program that is being written cannot be executed (ETXTBSY), and what is forked
	// meanwhile has it open until its own execve.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
