package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Add moves a process, with all its threads, into the cgroup. The kernel may
// wait 9-25 ms for an RCU grace period in each hierarchy.
func (c *Cgroup) Add(pid int) error {
	for _, dir := range c.dirs() {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("adding process %d to cgroup %s: %w", pid, dir, err)
		}
	}
	return nil
}

// pidsDir is the directory that is asked for processes: the freezer's, since
// what Freeze stops is what Kill must see.
func (c *Cgroup) pidsDir() string {
	if c.unified() {
		return c.location.V2
	}
	for _, name := range []string{"freezer", "devices", "pids", "memory"} {
		if dir := c.dirOf(name); dir != "" {
			return dir
		}
	}
	if dirs := c.dirs(); len(dirs) > 0 {
		return dirs[0]
	}
	return ""
}

// Pids returns the processes in the cgroup, and in those below it if recursive.
// Those that this process's pid namespace does not show are left out. A cgroup
// that is gone has none.
func (c *Cgroup) Pids(recursive bool) ([]int, error) {
	dir := c.pidsDir()
	if dir == "" {
		return nil, nil
	}
	pids, err := pidsIn(dir, recursive)
	if err != nil {
		return nil, err
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

func pidsIn(dir string, recursive bool) ([]int, error) {
	text, err := read(dir, "cgroup.procs")
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV): // removed, or just being removed
		return nil, nil
	case errors.Is(err, unix.EOPNOTSUPP): // a threaded v2 cgroup: its domain lists them
		text = ""
	case err != nil:
		return nil, fmt.Errorf("reading %s/cgroup.procs: %w", dir, err)
	}
	pids, err := parsePids(text)
	if err != nil || !recursive {
		return pids, err
	}
	children, err := subdirs(dir)
	if err != nil {
		return nil, err
	}
	for _, child := range children {
		below, err := pidsIn(child, true)
		if err != nil {
			return nil, err
		}
		pids = append(pids, below...)
	}
	return pids, nil
}

// parsePids reads cgroup.procs; 0 stands for a process of an outer namespace.
func parsePids(text string) ([]int, error) {
	var pids []int
	for field := range strings.FieldsSeq(text) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("malformed cgroup.procs: %q", field)
		}
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
