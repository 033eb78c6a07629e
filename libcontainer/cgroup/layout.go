package cgroup

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode is how the kernel's controllers are spread over hierarchies.
type Mode string

// The modes. Hybrid is v1 with a v2 hierarchy beside it that has no controllers.
const (
	V1     Mode = "v1"
	V2     Mode = "v2"
	Hybrid Mode = "hybrid"
)

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Name        string   // v1: its controllers joined as the kernel lists them ("cpu,cpuacct"), or "name=systemd"; v2: ""
	Controllers []string // v1 only; none for a named hierarchy
	Mountpoint  string   // absolute
	Root        string   // the cgroup that is mounted there: "/", save below a cgroup namespace or a bind
	OwnPath     string   // this process's cgroup, as /proc/self/cgroup names it
}

// Layout is what is mounted where, and where this process is in it.
type Layout struct {
	Mode        Mode
	hierarchies []Hierarchy // v1 in the order mounted, then v2
}

// Hierarchies returns all hierarchies, v2's ("") last.
func (l Layout) Hierarchies() []Hierarchy { return l.hierarchies }

// split parts a hybrid host's hierarchies.
func (l Layout) split() (v1, v2 []Hierarchy) {
	last := len(l.hierarchies) - 1
	return l.hierarchies[:last], l.hierarchies[last:]
}

// Detect finds what is mounted where from /proc/self/cgroup and the usual mount
// points, which costs the same however many mounts there are; mountinfo, which
// grows with every container, is read only if something is elsewhere.
func Detect() (Layout, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Layout{}, err
	}
	if layout, ok := usual(string(own), fileSystem); ok {
		return layout, nil
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Layout{}, err
	}
	return detect(string(mounts), string(own))
}

// fileSystem returns the magic number of the file system at path, 0 if none.
func fileSystem(path string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(path, &fs) != nil {
		return 0
	}
	return int64(fs.Type) //nolint:unconvert // int32 on some architectures
}

// usual is the layout if every hierarchy of own (/proc/self/cgroup) is at its
// usual mount point below /sys/fs/cgroup, and shows this process's own cgroup:
// where it does not, only a part of the hierarchy is mounted.
func usual(own string, fileSystem func(string) int64) (Layout, bool) {
	const base = "/sys/fs/cgroup"
	var layout Layout
	var unified *Hierarchy
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			return Layout{}, false
		}
		controllers, name := superOptions(parts[1])
		h := Hierarchy{Name: name, Controllers: controllers, Root: "/", OwnPath: path.Clean(parts[2])}
		magic := int64(unix.CGROUP_SUPER_MAGIC)
		switch {
		case name != "":
			h.Mountpoint = base + "/" + strings.TrimPrefix(name, "name=")
		case fileSystem(base) == unix.CGROUP2_SUPER_MAGIC:
			h.Mountpoint, magic = base, unix.CGROUP2_SUPER_MAGIC
		default:
			h.Mountpoint, magic = base+"/unified", unix.CGROUP2_SUPER_MAGIC
		}
		if fileSystem(h.Mountpoint+strings.TrimSuffix(h.OwnPath, "/")) != magic {
			if name == "" && fileSystem(h.Mountpoint) == 0 {
				continue // v2 is listed even where it is not mounted
			}
			return Layout{}, false
		}
		if name == "" {
			unified = &h
			continue
		}
		layout.hierarchies = append(layout.hierarchies, h)
	}
	err := layout.complete(unified)
	return layout, err == nil
}

// detect is Detect on the two files' contents.
func detect(mountinfo, own string) (Layout, error) {
	mounted, err := parseMounts(mountinfo)
	if err != nil {
		return Layout{}, err
	}
	paths := parseOwn(own)
	var layout Layout
	var unified *Hierarchy
	for _, m := range mounted {
		h := Hierarchy{Name: m.name, Controllers: m.controllers, Mountpoint: m.mountpoint, Root: m.root, OwnPath: paths[m.name]}
		if h.OwnPath == "" {
			h.OwnPath = "/"
		}
		if m.unified {
			if unified == nil {
				unified = &h
			}
			continue
		}
		same := func(seen Hierarchy) bool { return seen.Name == h.Name }
		if !slices.ContainsFunc(layout.hierarchies, same) {
			layout.hierarchies = append(layout.hierarchies, h)
		}
	}
	err = layout.complete(unified)
	return layout, err
}

// complete sets the mode and puts v2's hierarchy last.
func (l *Layout) complete(unified *Hierarchy) error {
	switch {
	case len(l.hierarchies) == 0 && unified == nil:
		return fmt.Errorf("no cgroup file system is mounted")
	case len(l.hierarchies) == 0:
		l.Mode = V2
	case unified == nil:
		l.Mode = V1
	default:
		l.Mode = Hybrid
	}
	if unified != nil {
		l.hierarchies = append(l.hierarchies, *unified)
	}
	return nil
}

// mount is a cgroup mount as mountinfo has it.
type mount struct {
	name        string
	controllers []string
	mountpoint  string
	root        string
	unified     bool
}

// flagOptions are v1's super block options that name no controller, and the
// generic ones.
var flagOptions = []string{
	"rw", "ro", "all", "none", "noprefix", "clone_children", "cpuset_v2_mode", "xattr",
	"nsdelegate", "memory_localevents", "memory_recursiveprot", "memory_hugetlb_accounting", "favordynmods",
}

// parseMounts finds the cgroup mounts in mountinfo, proc_pid_mountinfo(5):
//
//	36 35 98:0 /root /mount/point options optional... - type source superoptions
func parseMounts(mountinfo string) ([]mount, error) {
	var found []mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		if !ok || !strings.HasPrefix(after, "cgroup") {
			continue
		}
		fields := strings.Fields(before)
		tail := strings.Fields(after)
		if len(fields) < 6 || len(tail) < 3 {
			return nil, fmt.Errorf("malformed line in mountinfo: %q", line)
		}
		m := mount{root: unescape(fields[3]), mountpoint: unescape(fields[4])}
		switch tail[0] {
		case "cgroup2":
			m.unified = true
		case "cgroup":
			m.controllers, m.name = superOptions(tail[2])
		default:
			continue
		}
		found = append(found, m)
	}
	return found, nil
}

// superOptions splits a v1 mount's options into controllers and a name.
func superOptions(options string) (controllers []string, name string) {
	for option := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(option, "name="):
			name = option
		case slices.Contains(flagOptions, option), strings.Contains(option, "="), option == "":
		default:
			controllers = append(controllers, option)
		}
	}
	if len(controllers) > 0 {
		name = strings.Join(controllers, ",")
	}
	return controllers, name
}

// unescape undoes mountinfo's octal escapes of space, tab, newline, backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// PathsOf returns the cgroups of a process by the names of their hierarchies,
// as /proc/PID/cgroup has them.
func PathsOf(pid int) (map[string]string, error) {
	file, err := read(fmt.Sprintf("/proc/%d", pid), "cgroup")
	if err != nil {
		return nil, err
	}
	return parseOwn(file), nil
}

// parseOwn maps hierarchy names to paths, from a /proc/PID/cgroup file of lines
// ID:CONTROLLERS:PATH. A hierarchy with controllers and a name is listed by its
// controllers, as mounts are.
func parseOwn(file string) map[string]string {
	paths := make(map[string]string)
	for line := range strings.Lines(file) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		_, name := superOptions(parts[1])
		paths[name] = path.Clean(parts[2])
	}
	return paths
}
