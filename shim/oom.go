package shim

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// findCgroup finds the directory of the container's memory cgroup.
func (s *Shim) findCgroup(pid int) {
	v1, v2 := s.cgroupsOf(pid)
	if v1 == "" || v1 == "/" { // it is dead already: v1 shows zombies in the root
		v1 = s.specCgroup()
	}
	mounts, err := s.cgroupMounts()
	if err != nil {
		logf("%v", err)
		return
	}
	for _, m := range mounts {
		switch {
		case !m.v2 && hasOption(m.options, "memory") && v1 != "":
			s.cgroup = m.dir(v1)
			return
		case m.v2 && v2 != "" && v2 != "/":
			s.cgroup = m.dir(v2)
		}
	}
}

// cgroupsOf returns the paths of a process's cgroups: v1's memory and v2.
func (s *Shim) cgroupsOf(pid int) (v1, v2 string) {
	data, err := s.memory.read("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) != 3:
		case fields[1] == "":
			v2 = fields[2]
		case hasOption(fields[1], "memory"):
			v1 = fields[2]
		}
	}
	return v1, v2
}

func hasOption(list, option string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == option {
			return true
		}
	}
	return false
}

// specCgroup is where the bundle asks the cgroup to be, if that is a path.
func (s *Shim) specCgroup() string {
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	data, err := os.ReadFile(filepath.Join(s.Bundle, "config.json"))
	if err != nil || json.Unmarshal(data, &spec) != nil || !strings.HasPrefix(spec.Linux.CgroupsPath, "/") {
		return ""
	}
	return filepath.Clean(spec.Linux.CgroupsPath) // no .. leads out of the hierarchy
}

// oomKills returns how many processes the kernel's OOM killer has killed in the
// container's cgroup: oom_kill in v1's memory.oom_control and v2's memory.events.
func (s *Shim) oomKills() uint64 {
	if s.cgroup == "" {
		return 0
	}
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		data, err := s.memory.read(filepath.Join(s.cgroup, name))
		if err != nil {
			continue
		}
		for line := range bytes.Lines(data) {
			if fields := bytes.Fields(line); len(fields) == 2 && string(fields[0]) == "oom_kill" {
				kills, _ := strconv.ParseUint(string(fields[1]), 10, 64)
				return kills
			}
		}
	}
	return 0
}
