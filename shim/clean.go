package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killStrays kills the children that we do not know: what a runtime that was
// killed half way left running, its hooks too. Only we reap them, so a pid
// cannot have become another's.
func (s *Shim) killStrays() {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // the thread is gone
		}
		for pid := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(pid); err == nil && s.children[pid] == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

// A killed process is in its cgroup until it is dead, which nothing tells of a
// process that is not our child: its cgroups are tried again for a while.
const (
	cgroupPause = 10 * time.Millisecond
	cgroupTries = 200
)

// removeCgroups removes the container's cgroups if they are there and become
// empty: a runtime that was killed before it wrote its state does not find them
// again. Then it calls done.
func (s *Shim) removeCgroups(tries int, done func()) {
	path := s.specCgroup()
	if path == "" || path == "/" {
		done()
		return
	}
	mounts, err := s.cgroupMounts()
	if err != nil {
		logf("%v", err)
	}
	busy := false
	for _, m := range mounts {
		busy = errors.Is(unix.Rmdir(filepath.Join(m.point, path)), unix.EBUSY) || busy
	}
	if !busy || tries == 0 {
		done()
		return
	}
	s.after(cgroupPause, func() { s.removeCgroups(tries-1, done) })
}

// cgroupMount is one mounted cgroup hierarchy.
type cgroupMount struct {
	root, point string
	v2          bool
	options     string // v1: its controllers, among others
}

func (s *Shim) cgroupMounts() ([]cgroupMount, error) {
	data, err := s.memory.read("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	var mounts []cgroupMount
	for line := range bytes.Lines(data) {
		_, after, _ := bytes.Cut(line, []byte(" - "))
		if !bytes.HasPrefix(after, []byte("cgroup")) {
			continue
		}
		before, options, _ := strings.Cut(string(line), " - ")
		left, right := strings.Fields(before), strings.Fields(options)
		if len(left) < 5 || len(right) < 3 || right[0] != "cgroup" && right[0] != "cgroup2" {
			continue
		}
		mounts = append(mounts, cgroupMount{left[3], left[4], right[0] == "cgroup2", right[2]})
	}
	return mounts, nil
}

// dir is where a path of this hierarchy, as /proc/PID/cgroup has it, is mounted.
func (m cgroupMount) dir(path string) string {
	return filepath.Join(m.point, strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/")))
}
