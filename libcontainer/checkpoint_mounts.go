package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/engined/engined/libcontainer/cgroup"
	"github.com/engined/engined/libcontainer/criu"
	"github.com/engined/engined/libcontainer/rootfs"
)

// What is mounted from outside of the container is not in the images. A dump
// names each such mount, by its place; a restore says what is to be there:
//
//	                 dump                  restore
//	bind             place → place         place → source
//	v1 cgroups       place → place         place → the new container's cgroup
//	masked file      place → /dev/null     /dev/null → /dev/null
//	device           place → place         place → the host's
//
// Masks of directories and read-only paths are parts of the same /proc, or a tmpfs: criu
// makes those itself.

// dumpMounts names the mounts from outside.
func (c *Container) dumpMounts(o *criu.Options, spec *specs.Spec) error {
	external := func(place string) { o.Mounts = append(o.Mounts, criu.Pair{Key: place, Value: place}) }
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	for i := range spec.Mounts {
		m := &spec.Mounts[i]
		place, err := c.placeInside(m.Destination)
		if err != nil {
			return err
		}
		if rootfs.IsBind(m) {
			external(place)
		}
		for _, bind := range cgroupBinds(layout, spec, m, c.State.Cgroup) {
			external(path.Join(place, bind.Key))
		}
	}
	for _, masked := range spec.Linux.MaskedPaths {
		found, err := os.Stat(c.insidePath(masked))
		switch {
		case err == nil && !found.IsDir():
			o.Mounts = append(o.Mounts, criu.Pair{Key: masked, Value: "/dev/null"})
		case err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			return err
		}
	}
	for _, device := range devicePlaces(spec) {
		external(device)
	}
	return nil
}

// insidePath is a path of the container, as its first process sees it.
func (c *Container) insidePath(inside string) string {
	return "/proc/" + strconv.Itoa(c.State.Pid) + "/root" + path.Join("/", inside)
}

// placeInside resolves a destination: images name a mount by the place that
// links led it to.
func (c *Container) placeInside(destination string) (string, error) {
	root, err := unix.Open(c.insidePath("/"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("opening the container's root: %w", err)
	}
	defer unix.Close(root)
	return resolveIn(root, destination)
}

// resolveIn returns the place below root that a path leads to.
func resolveIn(root int, destination string) (string, error) {
	place := path.Join("/", destination)
	fd, err := openIn(root, place)
	if errors.Is(err, unix.ENOENT) { // hidden by a later mount
		return place, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolving %q in the container: %w", destination, err)
	}
	defer unix.Close(fd)
	// Both by /proc, so that a common prefix is what the host adds.
	base, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(root))
	if err != nil {
		return "", err
	}
	found, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	inside, ok := strings.CutPrefix(found, strings.TrimSuffix(base, "/"))
	if !ok {
		return place, nil
	}
	return path.Join("/", inside), nil
}

// openIn opens a path of a root without leaving it.
func openIn(root int, inside string) (int, error) {
	return unix.Openat2(root, strings.TrimPrefix(path.Join("./", inside), "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// cgroupBinds are the binds, names and sources, that a mount of type cgroup
// consists of, on v1 without a namespace.
func cgroupBinds(layout cgroup.Layout, spec *specs.Spec, m *specs.Mount, location cgroup.Location) []criu.Pair {
	if m.Type != "cgroup" || namespace(spec, specs.CgroupNamespace) != nil {
		return nil
	}
	var binds []criu.Pair
	for _, h := range layout.Hierarchies() {
		if dir := location.V1[h.Name]; dir != "" {
			binds = append(binds, criu.Pair{Key: path.Base(h.Mountpoint), Value: dir})
		}
	}
	return binds
}

// devicePlaces are the devices, which are binds in a user namespace.
func devicePlaces(spec *specs.Spec) []string {
	places := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}
	for _, device := range spec.Linux.Devices {
		places = append(places, path.Join("/", device.Path))
	}
	return places
}

// findPlaces finds out where the spec's mounts are to be, and makes the mount
// points that the root does not have. It runs where mounts are criu's alone;
// root is where the container's is mounted there.
func (r *restore) findPlaces(root string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r.places = make([]string, len(r.spec.Mounts))
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		if err := r.makeMountPoint(fd, m); err != nil {
			return fmt.Errorf("making the mount point %q: %w", m.Destination, err)
		}
		if r.places[i], err = resolveIn(fd, m.Destination); err != nil {
			return err
		}
	}
	return nil
}

// restoreMounts says what is to be at the places.
func (r *restore) restoreMounts() {
	var list []criu.Pair
	for i := range r.spec.Mounts {
		m := &r.spec.Mounts[i]
		if rootfs.IsBind(m) {
			list = append(list, criu.Pair{Key: r.places[i], Value: rootfs.Source(m, r.bundle)})
		}
		for _, bind := range cgroupBinds(r.layout, r.spec, m, r.cgroup.Location()) {
			list = append(list, criu.Pair{Key: path.Join(r.places[i], bind.Key), Value: bind.Value})
		}
	}
	for _, device := range devicePlaces(r.spec) { // /dev/null is that of masks, too
		list = append(list, criu.Pair{Key: device, Value: device})
	}
	r.session.options.Mounts = list
}

// makeMountPoint makes what a mount lies on, unless that is in an image: all of
// a tmpfs is. A bind is mounted, for the mount points in it.
func (r *restore) makeMountPoint(root int, m *specs.Mount) error {
	for i := range r.spec.Mounts {
		outer := &r.spec.Mounts[i]
		if outer.Type == "tmpfs" && strings.HasPrefix(path.Join("/", m.Destination), path.Join("/", outer.Destination)+"/") {
			return nil
		}
	}
	if m.Type == "cgroup" { // below /sys
		return nil
	}
	if !rootfs.IsBind(m) {
		fd, err := makeIn(root, m.Destination, true)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	source := rootfs.Source(m, r.bundle)
	directory, err := isDirectory(source)
	if err != nil {
		return err
	}
	fd, err := makeIn(root, m.Destination, directory)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Mount(source, "/proc/thread-self/fd/"+strconv.Itoa(fd), "", unix.MS_BIND|unix.MS_REC, "")
}

// makeIn opens a path of a root and makes what is missing of it.
func makeIn(root int, inside string, directory bool) (int, error) {
	inside = path.Join("/", inside)
	fd, err := openIn(root, inside)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := makeIn(root, path.Dir(inside), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	name := filepath.Base(inside)
	if directory {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		err = unix.Mknodat(parent, name, unix.S_IFREG|0o755, 0)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openIn(root, inside)
}
