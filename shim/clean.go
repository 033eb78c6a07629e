package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killStrays kills the children that we do not know: what a runtime that was
// killed half way left running, its hooks too.
func (s *Shim) killStrays() {
	for _, pid := range s.strays() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// strays returns the children that we do not know. Only we reap them, so a pid
// cannot become another's until reapStrays.
func (s *Shim) strays() (pids []int) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			continue // the thread is gone
		}
		for pid := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(pid); err == nil && s.children[pid] == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// killUnnamed kills what a runtime has started that failed, or named no pid. It is
// a stray like those of other starts and, where the container shares our pid
// namespace, its orphans: nobody but this start's processes has its pipes. One on
// a terminal has none; it is hung up when that is closed.
func (l *launch) killUnnamed() {
	var pipes []string
	for _, o := range l.outputs {
		if pipe, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(o.fd)); err == nil {
			pipes = append(pipes, pipe) // pipe:[INODE], the same at both ends
		}
	}
	for _, pid := range l.s.strays() {
		if holdsAny(pid, pipes) {
			logf("process %s: %d is killed, which its failed start has left", l.name, pid)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// holdsAny reports whether a process has one of the pipes open.
func holdsAny(pid int, pipes []string) bool {
	links, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(links, func(link string) bool {
		open, err := os.Readlink(link)
		return err == nil && slices.Contains(pipes, open)
	})
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
