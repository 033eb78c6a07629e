package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/engined/engined/integration/bundle"
)

// created makes the case's container without starting its process, and returns
// what then is to be seen from outside: the state that the specification
// defines, and the files of its cgroups.
func created(t *testing.T, runtime bundle.Runtime, dir, id string, spec *specs.Spec) (lines []string) {
	t.Helper()
	if spec.Process.Terminal {
		return nil // create would want a console socket
	}
	out, err := callDetached(runtime, dir, "create", "--pid-file", "pid", id)
	if err != nil {
		t.Fatalf("%s create: %v", runtime.Name, err)
	}
	defer func() {
		out, err := runtime.Call(dir, "delete", "--force", id)
		if runtime.Name == "crun" && out.Status < 0 { // 1.8.1 now and then dies of a signal
			out, err = runtime.Call(dir, "delete", "--force", id)
		}
		if err != nil || out.Status != 0 {
			t.Errorf("%s delete --force: %d %v %s", runtime.Name, out.Status, err, out.Stderr)
		}
	}()
	lines = append(lines, fmt.Sprint("create: exit status ", out.Status))
	if out.Status != 0 {
		return lines
	}
	out, err = runtime.Call(dir, "state", id)
	if err != nil || out.Status != 0 {
		t.Fatalf("%s state: %v %d %s", runtime.Name, err, out.Status, out.Stderr)
	}
	var state specs.State
	if err := json.Unmarshal([]byte(out.Stdout), &state); err != nil {
		t.Fatalf("%s state: %v: %s", runtime.Name, err, out.Stdout)
	}
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	lines = append(lines, fmt.Sprint("state: id ", state.ID), fmt.Sprint("state: status ", state.Status), fmt.Sprint("state: bundle ", state.Bundle),
		fmt.Sprint("state: pid of pid file ", fmt.Sprint(state.Pid) == string(pid)))
	for key, value := range state.Annotations {
		lines = append(lines, fmt.Sprintf("state: annotation %s=%s", key, value))
	}
	return append(lines, cgroupFiles(t, state.Pid)...)
}

// counted are files of a cgroup that say what happens in it, not what was set,
// or that nobody may read.
var counted = regexp.MustCompile(`^(tasks|cgroup\.(procs|threads|stat|events|event_control)|.*\.(numa_stat|stat|stat\.local|current|peak|events|events\.local|pressure|failcnt|(max_)?usage_in_bytes|slabinfo|reclaim|reset_stats|force_empty|usage.*|io_.*|memory_pressure))$`)

// cgroupFiles returns each file of the process's cgroups as a line.
func cgroupFiles(t *testing.T, pid int) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		lines = append(lines, "cgroup: "+line[strings.Index(line, ":")+1:])
		dir := cgroupDirectory(line)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			info, err := entry.Info()
			if err != nil || entry.IsDir() || info.Mode()&0o444 == 0 || counted.MatchString(entry.Name()) {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				lines = append(lines, fmt.Sprintf("cgroup file %s cannot be read", entry.Name()))
			}
			for line := range strings.Lines(string(content)) {
				lines = append(lines, fmt.Sprintf("cgroup file %s: %s", entry.Name(), strings.TrimSpace(line)))
			}
		}
	}
	return lines
}

// cgroupDirectory is where the hierarchy of a line of /proc/PID/cgroup shows it.
func cgroupDirectory(line string) string {
	const root = "/sys/fs/cgroup"
	fields := strings.SplitN(line, ":", 3)
	if fields[1] != "" {
		return filepath.Join(root, strings.TrimPrefix(fields[1], "name="), fields[2])
	}
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return filepath.Join(root, fields[2])
	}
	return filepath.Join(root, "unified", fields[2])
}
