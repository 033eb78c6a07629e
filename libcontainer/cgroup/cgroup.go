package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
)

// Location says where a container's cgroup is. Its JSON is kept in state
// files: fields are only ever added.
type Location struct {
	V1 map[string]string `json:"v1,omitempty"` // Hierarchy.Name → absolute directory
	V2 string            `json:"v2,omitempty"` // absolute directory; beside V1 on a hybrid host

	Unit string `json:"unit,omitempty"` // systemd's name of it, if systemd made it
	User bool   `json:"user,omitempty"` // the unit is of the user's systemd, not the host's
}

// Cgroup is a container's cgroup: one directory on v2, one per hierarchy on v1.
type Cgroup struct {
	location Location
}

// At returns the cgroup at a known location. It touches nothing.
func At(location Location) *Cgroup { return &Cgroup{location: location} }

// Location says where the cgroup is.
func (c *Cgroup) Location() Location { return c.location }

// unified reports whether v2 has the controllers.
func (c *Cgroup) unified() bool { return len(c.location.V1) == 0 && c.location.V2 != "" }

// dirOf returns the v1 directory that has the controller, or "".
func (c *Cgroup) dirOf(controller string) string {
	if dir, ok := c.location.V1[controller]; ok {
		return dir
	}
	for name, dir := range c.location.V1 {
		if slices.Contains(strings.Split(name, ","), controller) {
			return dir
		}
	}
	return ""
}

// dirs returns every directory, in a stable order, v2's last.
func (c *Cgroup) dirs() []string {
	dirs := make([]string, 0, len(c.location.V1)+1)
	for _, dir := range c.location.V1 {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	if c.location.V2 != "" {
		dirs = append(dirs, c.location.V2)
	}
	return dirs
}

// JoinFiles returns v1's tasks files, one per hierarchy. A single-threaded
// process that writes "0" to them moves itself without the kernel waiting for
// an RCU grace period, which cgroup.procs costs after idleness. v2 has no such
// file: see Dir.
func (c *Cgroup) JoinFiles() []string {
	files := make([]string, 0, len(c.location.V1))
	for _, dir := range c.location.V1 {
		files = append(files, filepath.Join(dir, "tasks"))
	}
	slices.Sort(files)
	return files
}

// CpusetFile returns the one of JoinFiles that is the cpuset's, "" if there is none,
// and false if it is another controller's, too.
func (c *Cgroup) CpusetFile() (file string, alone bool) {
	switch dir := c.dirOf("cpuset"); {
	case dir == "":
		return "", true
	case dir != c.location.V1["cpuset"]:
		return "", false
	default:
		return filepath.Join(dir, "tasks"), true
	}
}

// Dir returns the v2 directory for CLONE_INTO_CGROUP, or "" where v2 is not
// mounted. On a hybrid host both are needed: clone into Dir, then write to
// JoinFiles.
func (c *Cgroup) Dir() string { return c.location.V2 }
