package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// write opens dir/file, writes the values one by one and closes it. It uses
// the system calls themselves: os.File adds an fstat and poller work to each.
func write(dir, file string, values ...string) error {
	fd, err := open(filepath.Join(dir, file), unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, value := range values {
		if err := writeAll(fd, value); err != nil {
			return err
		}
	}
	return nil
}

// open retries what a signal interrupted.
func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// writeAll writes value in one call: each write is one command to the kernel.
func writeAll(fd int, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return err
		}
	}
}

// read returns dir/file whole.
func read(dir, file string) (string, error) {
	fd, err := open(filepath.Join(dir, file), unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var text strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buffer)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			return text.String(), nil
		}
		text.Write(buffer[:n])
	}
}

// failed words a limit that the kernel refused: the spec's field, the file,
// the value, the reason.
func failed(field, file, value string, err error) error {
	text := fmt.Errorf("setting linux.resources.%s: writing %q to %s: %w", field, value, file, err)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE), errors.Is(err, unix.ENODEV):
		return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, "linux.resources."+field, "%w", text)
	case errors.Is(err, unix.ENOENT):
		return errdefs.FailedPrecondition.Errorf("%w (this kernel does not have the file)", text)
	}
	return text
}

// invalid words a value that is refused before the kernel sees it.
func invalid(field, format string, args ...any) error {
	field = "linux.resources." + field
	return errdefs.InvalidArgument.Coded(errdefs.SpecInvalid, field, "%s: %w", field, fmt.Errorf(format, args...))
}
