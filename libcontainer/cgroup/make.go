package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/failpoint"
	"github.com/engined/engined/proto/errdefs"
)

// Options modify Make.
type Options struct {
	Systemd  bool // --systemd-cgroup: the caller uses MakeUnit instead of Make
	Rootless bool // as below a user namespace: what cannot be made for lack of permission is left out, unless the spec names a path
}

// Make creates the cgroup's directories; with the systemd driver, see MakeUnit.
// A new v1 cpuset has neither CPUs nor memory nodes, and refuses processes, until
// SetCPU. On error what it made is gone again.
func Make(layout Layout, spec *specs.Spec, id string, opts Options) (*Cgroup, error) {
	c := &Cgroup{}
	if _, err := c.makeIn(layout.hierarchies, layout.Mode, spec, id, opts); err != nil {
		return nil, err
	}
	return c, nil
}

// Begin creates the v2 directory of a hybrid host alone, for a process that is born in
// it while Finish creates the others. It returns nil if the directory is there already,
// and then perhaps those of somebody's container: Make finds out before anything joins.
func Begin(layout Layout, spec *specs.Spec, id string, opts Options) (*Cgroup, error) {
	c := &Cgroup{}
	_, v2 := layout.split()
	fresh, err := c.makeIn(v2, layout.Mode, spec, id, opts)
	if err != nil || !fresh {
		return nil, err
	}
	return c, nil
}

// Finish creates the directories that Begin has left. On error these are gone again,
// and the cgroup is what Begin made.
func (c *Cgroup) Finish(layout Layout, spec *specs.Spec, id string, opts Options) error {
	rest := &Cgroup{}
	v1, _ := layout.split()
	if _, err := rest.makeIn(v1, layout.Mode, spec, id, opts); err != nil {
		return err
	}
	c.location.V1 = rest.location.V1
	return nil
}

// makeIn is Make in some hierarchies. It reports whether each directory is new.
func (c *Cgroup) makeIn(hierarchies []Hierarchy, mode Mode, spec *specs.Spec, id string, opts Options) (fresh bool, err error) {
	var undo errdefs.Undo
	defer undo.OnError(&err)
	cgroupsPath := pathOf(spec)
	fresh = true
	for _, h := range hierarchies {
		dir := h.dir(cgroupsPath, id, mode == V2)
		made, err := h.make(dir, mode == V2)
		if lacksPermission(err) && cgroupsPath == "" && (opts.Rootless || InUserNamespace()) {
			continue
		}
		if err != nil {
			return false, err
		}
		if made {
			undo.Add("remove cgroup "+dir, func(ctx context.Context) error { return removeDir(ctx, dir) })
		}
		failpoint.At("cgroup-directory-made")
		fresh = fresh && made
		c.location.add(h.Name, dir)
	}
	if !fresh {
		err = c.refuseProcesses()
	}
	return fresh, err
}

// Locate returns where Make puts the cgroup, and makes nothing.
func Locate(layout Layout, spec *specs.Spec, id string) Location {
	var location Location
	for _, h := range layout.hierarchies {
		location.add(h.Name, h.dir(pathOf(spec), id, layout.Mode == V2))
	}
	return location
}

func pathOf(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	return spec.Linux.CgroupsPath
}

func lacksPermission(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
}

// add records dir under the hierarchy's name.
func (l *Location) add(name, dir string) {
	if name == "" {
		l.V2 = dir
		return
	}
	if l.V1 == nil {
		l.V1 = make(map[string]string, 12)
	}
	l.V1[name] = dir
}

// refuseProcesses keeps two containers from sharing a cgroup: freezing or
// killing one would hit the other.
func (c *Cgroup) refuseProcesses() error {
	pids, err := c.Pids(true)
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return errdefs.FailedPrecondition.Errorf("container's cgroup is not empty: %d process(es) found", len(pids))
	}
	frozen, err := c.Frozen()
	if err == nil && frozen {
		err = errdefs.FailedPrecondition.Errorf("container's cgroup unexpectedly frozen")
	}
	return err
}

// dir applies runc's rules: an absolute path is below the mount point, a
// relative or empty one below the runtime's own cgroup. On v2 it is beside the
// runtime's own: a v2 cgroup with processes cannot have children with
// controllers.
func (h Hierarchy) dir(cgroupsPath, id string, v2 bool) string {
	inner := filepath.Clean("/" + cgroupsPath) // ".." cannot leave the root
	if filepath.IsAbs(cgroupsPath) {
		return filepath.Join(h.Mountpoint, inner)
	}
	if inner == "/" {
		inner = "/" + id
	}
	own := h.OwnPath
	if v2 {
		own = filepath.Dir(own)
	}
	return filepath.Join(h.at(own), inner)
}

// at returns where the cgroup path is in the file system. What lies outside of
// what is mounted is taken for the mount's root.
func (h Hierarchy) at(path string) string {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(h.Root, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return h.Mountpoint
	}
	return filepath.Join(h.Mountpoint, rest)
}

// make creates dir and what its parents need so that it can have processes. It
// reports whether dir is new.
func (h Hierarchy) make(dir string, v2 bool) (made bool, err error) {
	switch {
	case h.Name == "" && v2:
		return makeUnified(h.Mountpoint, dir)
	case h.has("cpuset"):
		if err := makeCpusets(h.Mountpoint, filepath.Dir(dir)); err != nil {
			return false, err
		}
	}
	return mkdirAll(dir)
}

func (h Hierarchy) has(controller string) bool {
	return slices.Contains(h.Controllers, controller)
}

// mkdirAll tries the whole path first: parents are there but for the first
// container below them.
func mkdirAll(dir string) (made bool, err error) {
	err = unix.Mkdir(dir, 0o755)
	if err == unix.ENOENT {
		if _, err := mkdirAll(filepath.Dir(dir)); err != nil {
			return false, err
		}
		err = unix.Mkdir(dir, 0o755)
	}
	switch err {
	case nil:
		return true, nil
	case unix.EEXIST:
		return false, nil
	}
	return false, &os.PathError{Op: "mkdir", Path: dir, Err: err}
}

// makeCpusets makes dir, and what is above it, in v1's cpuset hierarchy, in which a
// new cgroup can have no processes until CPUs and memory nodes are copied from its
// parent.
func makeCpusets(mountpoint, dir string) error {
	if dir == mountpoint || !strings.HasPrefix(dir, mountpoint+"/") {
		return nil
	}
	if err := makeCpusets(mountpoint, filepath.Dir(dir)); err != nil {
		return err
	}
	made, err := mkdirAll(dir)
	if err != nil {
		return err
	}
	return fillCpuset(dir, nil, made)
}

// fillCpuset is inheritCpuset for a directory that goes again if that fails and it
// was made.
func fillCpuset(dir string, r *specs.LinuxResources, made bool) error {
	err := inheritCpuset(dir, r, made)
	if err != nil && made {
		err = errors.Join(err, rmdir(dir))
	}
	return err
}

// inheritCpuset copies from the parent what the spec does not set and dir lacks.
func inheritCpuset(dir string, r *specs.LinuxResources, fresh bool) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if setsCpuset(r, file) {
			continue
		}
		if err := inherit(filepath.Dir(dir), dir, file, fresh); err != nil {
			return err
		}
	}
	return nil
}

// setsCpuset reports whether updateV1 writes the file.
func setsCpuset(r *specs.LinuxResources, file string) bool {
	if r == nil || r.CPU == nil {
		return false
	}
	return file == "cpuset.cpus" && r.CPU.Cpus != "" || file == "cpuset.mems" && r.CPU.Mems != ""
}

// inherit copies a cpuset file from the parent if it is empty.
func inherit(parent, dir, file string, fresh bool) error {
	if !fresh {
		value, err := read(dir, file)
		if err != nil || strings.TrimSpace(value) != "" {
			return err
		}
	}
	value, err := read(parent, file)
	if err != nil {
		return fmt.Errorf("reading %s/%s: %w", parent, file, err)
	}
	if err := write(dir, file, strings.TrimSpace(value)); err != nil {
		return fmt.Errorf("writing %q to %s/%s: %w", value, dir, file, err)
	}
	return nil
}

// makeUnified creates dir on v2 and hands every controller down to it.
func makeUnified(mountpoint, dir string) (made bool, err error) {
	available, err := read(mountpoint, "cgroup.controllers")
	if err != nil {
		return false, fmt.Errorf("reading %s/cgroup.controllers: %w", mountpoint, err)
	}
	if err := delegate(mountpoint, filepath.Dir(dir), strings.Fields(available)); err != nil {
		return false, err
	}
	return mkdirAll(dir)
}

// delegate makes every directory from the mount point to dir and enables the
// controllers for its children. A controller that the kernel refuses (v1 has
// it, or the directory holds processes) is left out: SetButCPU then names the file
// that is missing, if the spec needs it.
func delegate(mountpoint, dir string, controllers []string) error {
	if dir != mountpoint && strings.HasPrefix(dir, mountpoint+"/") {
		if err := delegate(mountpoint, filepath.Dir(dir), controllers); err != nil {
			return err
		}
		if _, err := mkdirAll(dir); err != nil {
			return err
		}
	}
	enabled, err := read(dir, "cgroup.subtree_control")
	if err != nil {
		return fmt.Errorf("reading %s/cgroup.subtree_control: %w", dir, err)
	}
	var missing []string
	for _, name := range controllers {
		if !slices.Contains(strings.Fields(enabled), name) {
			missing = append(missing, "+"+name)
		}
	}
	if len(missing) == 0 || write(dir, "cgroup.subtree_control", strings.Join(missing, " ")) == nil {
		return nil
	}
	for _, one := range missing {
		_ = write(dir, "cgroup.subtree_control", one) // all or nothing failed: take what there is
	}
	return nil
}

// Of returns the cgroup that a process is in, for callers that did not make
// it: a foreign runtime's containers.
func Of(pid int) (*Cgroup, error) {
	layout, err := Detect()
	if err != nil {
		return nil, err
	}
	return layout.Of(pid)
}

// Of is the same for who asks often.
func (l Layout) Of(pid int) (*Cgroup, error) {
	paths, err := PathsOf(pid)
	if err != nil {
		return nil, err
	}
	c := &Cgroup{}
	for _, h := range l.hierarchies {
		if path, ok := paths[h.Name]; ok {
			c.location.add(h.Name, h.at(path))
		}
	}
	return c, nil
}
