package system

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// facts are what the host says of itself. What cannot be read stays zero:
// a host without /etc/os-release is no error.
type facts struct {
	name, kernel, machine string
	system, systemVersion string
	memory                int64 // bytes
	forwarding            bool
	seccomp, apparmor     bool
	cgroup                cgroupFacts
}

// cgroupFacts are the limits that the kernel's cgroups can set.
type cgroupFacts struct {
	version             string // "1" (also hybrid) or "2"
	memory, swap        bool
	oomKillDisable      bool
	cpuQuota, cpuShares bool
	cpuset, pids        bool
}

func host() facts {
	var uname unix.Utsname
	_ = unix.Uname(&uname) // fails only for a bad pointer
	name, version := readOSRelease("/etc/os-release", "/usr/lib/os-release")
	return facts{
		name:          unix.ByteSliceToString(uname.Nodename[:]),
		kernel:        unix.ByteSliceToString(uname.Release[:]),
		machine:       unix.ByteSliceToString(uname.Machine[:]),
		system:        name,
		systemVersion: version,
		memory:        parseMemTotal(readText("/proc/meminfo")),
		forwarding:    strings.TrimSpace(readText("/proc/sys/net/ipv4/ip_forward")) == "1",
		seccomp:       strings.Contains(readText("/proc/self/status"), "\nSeccomp:"),
		apparmor:      strings.HasPrefix(readText("/sys/module/apparmor/parameters/enabled"), "Y"),
		cgroup:        readCgroup("/sys/fs/cgroup"),
	}
}

// CgroupV2 says whether the host has the unified hierarchy alone.
func CgroupV2() bool { return readCgroup("/sys/fs/cgroup").version == "2" }

// AppArmor says whether the kernel enforces AppArmor.
func AppArmor() bool { return host().apparmor }

// readText returns a small file's content, or nothing.
func readText(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(content)
}

// readOSRelease returns PRETTY_NAME and VERSION_ID of the first file there is
// (os-release(5)).
func readOSRelease(paths ...string) (name, version string) {
	for _, path := range paths {
		if text := readText(path); text != "" {
			return parseOSRelease(text)
		}
	}
	return "", ""
}

func parseOSRelease(text string) (name, version string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "PRETTY_NAME":
			name = strings.Trim(value, `"'`)
		case "VERSION_ID":
			version = strings.Trim(value, `"'`)
		}
	}
	return name, version
}

// parseMemTotal reads the line `MemTotal:  16384 kB` of /proc/meminfo.
func parseMemTotal(text string) int64 {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
			kibibytes, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return kibibytes << 10
			}
		}
	}
	return 0
}

// readCgroup asks the hierarchy mounted at root: a cgroup2 file system there
// is v2, anything else v1 or hybrid, where the controllers that count are v1's.
func readCgroup(root string) cgroupFacts {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err == nil {
		return unified(strings.Fields(string(controllers)), there("/proc/swaps"))
	}
	return cgroupFacts{
		version:        "1",
		memory:         there(root, "memory", "memory.limit_in_bytes"),
		swap:           there(root, "memory", "memory.memsw.limit_in_bytes"),
		oomKillDisable: there(root, "memory", "memory.oom_control"),
		cpuQuota:       there(root, "cpu", "cpu.cfs_quota_us"),
		cpuShares:      there(root, "cpu", "cpu.shares"),
		cpuset:         there(root, "cpuset", "cpuset.cpus"),
		pids:           there(root, "pids", "cgroup.procs"),
	}
}

func unified(controllers []string, swap bool) cgroupFacts {
	has := func(name string) bool { return slices.Contains(controllers, name) }
	return cgroupFacts{
		version:  "2",
		memory:   has("memory"),
		swap:     has("memory") && swap,
		cpuQuota: has("cpu"), cpuShares: has("cpu"),
		cpuset: has("cpuset"), pids: has("pids"),
	}
}

func there(elements ...string) bool {
	_, err := os.Stat(filepath.Join(elements...))
	return err == nil
}
