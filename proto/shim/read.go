package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"github.com/engined/engined/proto/errdefs"
)

// ReadFile reads one of a container's JSON files into v. A file that is not
// there is fs.ErrNotExist, one that is not whole JSON has kind DataLoss.
func ReadFile(path string, v any) error {
	data, err := os.ReadFile(path)
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
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	// Field 2 is the command in parentheses and may hold spaces and ')'.
	_, after, found := bytes.Cut(data[bytes.LastIndexByte(data, ')')+1:], []byte(" "))
	fields := bytes.Fields(after)
	const start = 22 - 3 // the first field after the command is the third
	if !found || len(fields) <= start {
		return 0, errdefs.DataLoss.Errorf("%s has %d fields after the command, expected more than %d", path, len(fields), start)
	}
	return strconv.ParseUint(string(fields[start]), 10, 64)
}
