package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/engined/engined/proto/errdefs"
)

// ReadFile reads one of a container's JSON files into v. A file that is not
// there is fs.ErrNotExist, one that is not whole JSON has kind DataLoss.
func ReadFile(path string, v any) error {
	data, err := Read(path, make([]byte, 2<<10))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errdefs.DataLoss.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// WriteFile writes v as JSON to path, whole or not at all. Only the file's one
// writer (see the package comment) may call it: the temporary name is fixed.
func WriteFile(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		os.Remove(temporary) // a disk that is full leaves an empty file
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return err
	}
	return nil
}

// StartTime returns when process pid started, in clock ticks since boot: field
// 22 of /proc/PID/stat, which with the pid names a process for ever.
func StartTime(pid int) (uint64, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	var buffer [1024]byte // more than 52 numbers and a command of 64 bytes
	data, err := readSmall(path, buffer[:])
	if err != nil {
		return 0, err
	}
	// Field 2 is the command in parentheses and may hold spaces and ')'.
	rest := data[bytes.LastIndexByte(data, ')')+1:]
	var field []byte
	for i := 3; i <= 22; i++ {
		field, rest, _ = bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" "))
	}
	start, err := strconv.ParseUint(string(field), 10, 64)
	if err != nil {
		return 0, errdefs.DataLoss.Errorf("%s: field 22 is %q, expected a number", path, field)
	}
	return start, nil
}

// Read returns what is in a file: in buffer, if that is longer. A restart reads
// hundreds of them, and package os makes eleven system calls for each, of which
// eight find out that a file cannot be waited for.
func Read(path string, buffer []byte) ([]byte, error) {
	data, err := readSmall(path, buffer)
	if err == nil && len(data) == len(buffer) {
		return os.ReadFile(path)
	}
	return data, err
}

// readSmall reads a file with one read(2), without the buffers and the poller that
// package os would bring into the shim.
func readSmall(path string, buffer []byte) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buffer)
		if err == nil {
			return buffer[:n], nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
	}
}
